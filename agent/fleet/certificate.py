"""What other machines see of this one's TLS certificate, tried in memory with the same library."""

import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import ConfigError

log = logging.getLogger(__name__)

_EXPIRED = 10
"""OpenSSL's number for a certificate that has ended."""


@dataclass(slots=True)
class CertificateEnd:
    """When this machine's certificate ends; read again when its file changes."""

    certificate: str
    key: str
    _changed_at: float = field(init=False, default=-1.0)
    _ends: float | None = field(init=False, default=None)

    def ends_wall(self) -> float | None:
        """None: there is none, or its files cannot be used."""
        if not self.certificate:
            return None
        try:
            changed_at = Path(self.certificate).stat().st_mtime
            if changed_at != self._changed_at:
                self._ends, self._changed_at = ends_at(self.certificate, self.key), changed_at
        except (OSError, ConfigError) as error:
            log.debug("cannot read when the certificate ends: %s", error)
        return self._ends


def ends_at(certificate: str, key: str) -> float:
    """Wall time of its end; 0 when it has ended. ConfigError: the files cannot be used."""
    server = _server(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is its own witness here
    try:
        seen = _seen(server, client, "")
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return 0.0
        raise _unusable(certificate, error.verify_message) from error
    return float(ssl.cert_time_to_seconds(str(seen["notAfter"])))


def why_refused(certificate: str, key: str, ca: str, host: str) -> str:
    """Why machines that trust `ca` refuse it for `host`; "" = they accept it."""
    try:
        client = ssl.create_default_context(cafile=ca or None)
        _seen(_server(certificate, key), client, host)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError as error:
        return f"{ca}: {error.strerror or error}"
    return ""


def _server(certificate: str, key: str) -> ssl.SSLContext:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        cause = error.strerror if not isinstance(error, ssl.SSLError) else ""
        raise _unusable(
            certificate, cause or "certificate_key is not its key, or one is no PEM"
        ) from error
    return server


def _unusable(certificate: str, cause: str) -> ConfigError:
    return ConfigError(
        f"cannot use the certificate {certificate}: {cause}", field="fleet.certificate"
    )


def _seen(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> dict[str, object]:
    """What the client reads of the certificate, after a handshake without a network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(to_client, to_server, server_hostname=host or None)
    answers = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):  # each side speaks twice at most
        for side in (asks, answers):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return dict(asks.getpeercert() or {})
