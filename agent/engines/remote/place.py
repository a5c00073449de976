"""Where a backend's server is and how it may be asked."""

import ssl
from dataclasses import dataclass

from agent.engines.remote.declaration import BackendDeclaration, refuse


@dataclass(frozen=True, slots=True)
class Place:
    """What a request to a server needs to know. Seconds."""

    url: str
    """Without a slash at its end; a path in it is kept (a server behind a proxy)."""
    timeout: float = 10.0
    """For one whole request, waiting for its turn included."""
    parallel: int = 50
    ca_file: str = ""
    tls_verify: bool = True


def place_of(backend: BackendDeclaration) -> Place:
    if not backend.url:
        raise refuse("url", "missing")
    return Place(
        backend.url.rstrip("/"),
        backend.timeout,
        backend.parallel,
        backend.ca_file,
        backend.tls_verify,
    )


def tls_of(place: Place) -> ssl.SSLContext | bool:
    """How the server must show who it is. A `ca_file` is trusted instead of the machine's list."""
    if not place.url.startswith("https:"):
        return True
    try:
        context = ssl.create_default_context(cafile=place.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise refuse(
            "ca_file", getattr(error, "strerror", None) or "no certificates in it"
        ) from error
    if not place.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
