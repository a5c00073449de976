"""The TLS certificate of an address, read again while connections go on."""

import ssl
from dataclasses import dataclass

from agent.config import FleetSection
from agent.core.model import Category
from agent.errors import ConfigError
from agent.log import bound

log = bound(Category.API)


@dataclass(frozen=True, slots=True)
class Certificate:
    path: str
    key: str
    context: ssl.SSLContext

    @classmethod
    def of(cls, section: FleetSection) -> "Certificate | None":
        """None: this address is plain HTTP. ConfigError for files that fit nothing."""
        if not section.certificate:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        made = cls(section.certificate, section.certificate_key, context)
        made._load()
        return made

    def read(self) -> None:
        """New files for new connections; wrong ones leave the old certificate in place."""
        try:
            # Into a context of its own first: half a pair would spoil the one in use.
            Certificate(self.path, self.key, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))._load()
            self._load()
        except ConfigError as error:
            log.error("the old certificate stays in force: %s", error)

    def _load(self) -> None:
        try:
            self.context.load_cert_chain(self.path, self.key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            cause = getattr(error, "strerror", None) or "certificate and key do not belong together"
            raise ConfigError(
                f"cannot use the certificate {self.path} with {self.key}: {cause}",
                field="fleet.certificate",
            ) from error


def _no_password() -> str:
    """OpenSSL would ask on a terminal, and wait."""
    return ""
