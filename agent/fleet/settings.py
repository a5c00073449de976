"""[fleet]: machines that own their sessions in one etcd."""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from agent.config.config import Config, Table, is_loopback, split_address, url_fault
from agent.core.setting import name_fault, setting
from agent.errors import ConfigError


def _store_fault(members: tuple[str, ...]) -> str:
    for member in members:
        if fault := url_fault(member, ("https", "http")):
            return fault
        if (parts := urlsplit(member)).path.strip("/"):
            return f"{member!r:.80} must not have a path"
        if parts.scheme == "http" and not _is_near(parts.hostname or ""):
            return f"http is for loopback and private addresses, {member!r:.80} must be https"
    return ""


def _is_near(host: str) -> bool:
    with suppress(ValueError):
        return is_loopback(host) or ip_address(host).is_private
    return False


def _name_fault(name: str) -> str:
    return next(filter(None, map(name_fault, name.split("/", 1))), "") if name else ""


def _address_fault(address: str) -> str:
    host, port = split_address(address or "a:1")
    return "" if port and host not in ("0.0.0.0", "::") else "no other machine can reach it"


@dataclass(frozen=True, slots=True)
class FleetSettings:
    store: tuple[str, ...] = setting(
        (), 'members of etcd, as "https://10.0.0.1:2379"; [] = this machine is in no fleet',
        restart=True, check=_store_fault,
    )  # fmt: skip
    name: str = setting(
        "", 'FLEET/MACHINE, or MACHINE of the fleet "fleet"; "" = the name of this host',
        restart=True, check=_name_fault,
    )  # fmt: skip
    address: str = setting(
        "", "HOST:PORT at which the other machines reach this one", restart=True,
        check=_address_fault,
    )  # fmt: skip

    @property
    def names(self) -> tuple[str, str]:
        """Return the fleet's name and this machine's."""
        host = re.sub(r"[^a-z0-9_-]", "-", socket.gethostname().partition(".")[0].lower())
        fleet, _, machine = f"fleet/{self.name or host}".rpartition("/")
        if fault := name_fault(machine):
            raise ConfigError(f"cannot take this host's name: {fault}", field="fleet.name")
        return fleet.rpartition("/")[2], machine


HEAD = """\
# A fleet: a session is of one of several machines, as their etcd says, and runs only while that one
# renews its lease. This one's certificates: fleet/ca.pem, machine.pem, machine.key in state_path.\
"""

FLEET = Table(name="fleet", plain=FleetSettings(), head=HEAD)


def fleet_of(config: Config) -> FleetSettings:
    found: FleetSettings = FLEET.rows(config)[0]
    return found
