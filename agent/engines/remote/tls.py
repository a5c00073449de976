"""How a backend's server must show who it is."""

import ssl

from agent.engines.remote.declaration import BackendDeclaration, refuse


def tls_of(server: BackendDeclaration) -> ssl.SSLContext | bool:
    """A `ca_file` is trusted instead of the machine's list."""
    if not server.url.startswith("https:"):
        return True
    try:
        context = ssl.create_default_context(cafile=server.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        cause = getattr(error, "strerror", None) or "no certificates in it"
        raise refuse("ca_file", cause) from error
    if not server.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
