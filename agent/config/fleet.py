"""[fleet]: this machine among others that share their sessions, and the rules of its addresses."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from agent.config.addresses import is_loopback, split_address
from agent.config.problem import Problem
from agent.config.secret_file import read_secret
from agent.core.fleet.lease import LeasePolicy
from agent.core.setting import setting

_LEASE = LeasePolicy()


def _name_fault(name: str) -> str:
    plain = all(sign.isascii() and (sign.isalnum() or sign in ".-_") for sign in name)
    return "" if plain and len(name) <= 64 else "it must be at most 64 letters, digits, '.', '-'"


def _label_fault(labels: tuple[str, ...]) -> str:
    names = [label.partition("=")[0] for label in labels]
    if not all(name and "=" in label for name, label in zip(names, labels, strict=True)):
        return "each label must be NAME=VALUE"
    return "a label is named twice" if len(set(names)) < len(names) else ""


@dataclass(frozen=True, slots=True)
class FleetSection:
    database: str = setting(
        "",
        "PostgreSQL that the machines of a fleet share, as postgresql://USER@HOST/NAME;"
        ' "" = this machine is alone, and no other key of this table is read',
        credentials=True,
        restart=True,
    )
    database_password_file: str = setting(
        "", 'file with the password of that database; "" = none, or in the address', restart=True
    )
    name: str = setting(
        "",
        'name of this machine in the fleet; "" = its host name',
        check=_name_fault,
        restart=True,
    )
    listen: str = setting(
        "",
        "HOST:PORT on which this machine answers the others; another port than api.listen",
        restart=True,
    )
    address: str = setting(
        "",
        'https://HOST:PORT at which the others reach `listen`; "" = `listen` itself',
        restart=True,
    )
    certificate: str = setting(
        "",
        'TLS certificate of `listen` (PEM); "" = plain HTTP, on private addresses only',
        restart=True,
    )
    certificate_key: str = setting("", "private key of that certificate (PEM)", restart=True)
    ca: str = setting(
        "",
        'CA certificates (PEM) that signed those of the machines; "" = the system\'s',
        restart=True,
    )
    key_file: str = setting(
        "",
        "file of the fleet's key, the same on all machines: it seals stored sessions, and"
        ' machines know each other by it; "" = fleet.key in state_path',
        restart=True,
    )
    capacity: int = setting(
        100, "most sessions that the fleet gives this machine", low=1, restart=True
    )
    labels: tuple[str, ...] = setting(
        (),
        "labels of this machine, each NAME=VALUE, for `wa-agent create --label`",
        check=_label_fault,
        restart=True,
    )
    ttl: float = setting(
        _LEASE.ttl,
        "seconds without a renewal after which another machine takes the sessions;"
        " the same on all machines",
        low=6,
        restart=True,
    )
    margin: float = setting(
        _LEASE.margin,
        "seconds before the end of `ttl` at which this machine disconnects its sessions",
        low=2,
        restart=True,
    )
    copy_lag: float = setting(
        1.0,
        "seconds after a change of a session's files until its copy is stored",
        low=0.1,
        restart=True,
    )
    oldest_copy: float = setting(
        60.0,
        "seconds that a session's stored copy may lack changes: a session with an older one"
        " waits for its machine if that is lost, until an operator accepts the copy",
        low=1,
        restart=True,
    )
    profiles: str = setting(
        "",
        'restic repository of browser profiles; "" = these sessions wait for their machine',
        restart=True,
    )
    profiles_env_file: str = setting(
        "",
        "file with restic's environment for that repository, such as AWS_ACCESS_KEY_ID",
        restart=True,
    )

    @property
    def policy(self) -> LeasePolicy:
        return LeasePolicy(self.ttl, self.margin)

    @property
    def machine(self) -> str:
        return self.name or socket.gethostname().partition(".")[0]

    @property
    def label_values(self) -> Mapping[str, str]:
        return dict(label.split("=", 1) for label in self.labels)

    @property
    def reached_at(self) -> str:
        """The URL under which the other machines call this one."""
        scheme = "https" if self.certificate else "http"
        return (self.address or f"{scheme}://{self.listen}").rstrip("/")

    def password(self) -> str:
        """From its file; "" where none is named. ConfigError without its content."""
        path, field = self.database_password_file, "fleet.database_password_file"
        return read_secret(path, "[fleet]", field, lambda _text: "") if path else ""


def find_fleet_problem(section: FleetSection) -> Problem | None:
    if not section.database:
        return None
    return _database(section) or _listen(section) or _times(section)


def _database(section: FleetSection) -> Problem | None:
    key = "fleet.database"
    try:
        parts = urlsplit(section.database)
    except ValueError:
        return Problem((key,), "it must be postgresql://USER@HOST/NAME")
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in ("postgresql", "postgres"):
        return Problem((key,), "it must be postgresql://USER@HOST/NAME")
    if "password" in options:
        return Problem(
            (key,), "write the password into a file, and name that in database_password_file"
        )
    return None


def _listen(section: FleetSection) -> Problem | None:
    try:
        host, port = split_address(section.listen)
    except ValueError as error:
        return Problem(("fleet.listen", "fleet.database"), f"fleet.listen: {error}")
    if bool(section.certificate) != bool(section.certificate_key):
        return Problem(
            ("fleet.certificate", "fleet.certificate_key"),
            "certificate and certificate_key belong together",
        )
    if not section.certificate and not _is_near(host):
        return Problem(
            ("fleet.listen",),
            f"without `certificate` it must be a loopback or private address, not {host}",
        )
    if not section.address and (port == 0 or host in ("0.0.0.0", "::")):
        return Problem(
            ("fleet.address", "fleet.listen"),
            "name the address at which the other machines reach this one",
        )
    if section.address and not section.address.startswith(("https://", "http://")):
        return Problem(("fleet.address",), "it must be https://HOST:PORT")
    return None


def _times(section: FleetSection) -> Problem | None:
    if section.margin > section.ttl / 2:
        return Problem(
            ("fleet.margin", "fleet.ttl"),
            f"margin ({section.margin:g}) must be at most half of ttl ({section.ttl:g})",
        )
    return None


def _is_near(host: str) -> bool:
    """A socket, or an address that no stranger routes to."""
    if not host or host.startswith("/") or is_loopback(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_private and not address.is_unspecified
