"""The names of the systemd units; no other module spells one."""

import re
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest

AGENT_SERVICE = "wa-agent.service"
AGENT_SOCKET = "wa-agent.socket"
AGENT_HTTP_SOCKET = "wa-agent-http.socket"
INSTANCES_SLICE = "wa-instances.slice"

INSTALLED_SESSIONS = Path("/var/lib/wa-agent/sessions")
"""WA_SESSION_ROOT of the units as they are shipped."""

INSTALLED_CACHE = Path("/var/lib/wa-agent/cache")
"""WA_CACHE_PATH of the units as they are shipped."""

_UNIT_FOLDERS = tuple(
    Path(folder) / "systemd/system"
    for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
_UNIT_PATHS = "/org/freedesktop/systemd1/unit/"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of worker: the names of its units and their places."""

    prefix: str
    runtime: Path
    """The folder that RuntimeDirectory= in the unit makes for each worker."""
    installed: Path
    """WA_SESSION_ROOT of the units as they are shipped."""
    arguments: tuple[str, ...] = ()
    """For the worker's program, before its name."""

    @property
    def template(self) -> str:
        return f"{self.prefix}.service"

    @property
    def pattern(self) -> str:
        return f"{self.prefix}*.service"

    def unit(self, id: str) -> str:
        return f"{self.prefix}{parse_instance_id(id)}.service"

    def id_of(self, unit: str) -> InstanceId | None:
        """The instance whose worker this unit runs; None for other units."""
        if not (unit.startswith(self.prefix) and unit.endswith(".service")):
            return None
        try:
            return parse_instance_id(unit[len(self.prefix) : -len(".service")])
        except InvalidRequest:
            return None  # an operator may have started `wa-instance@Some.Thing`

    def runtime_directory(self, id: str) -> Path:
        return self.runtime / parse_instance_id(id)


INSTANCES = Kind("wa-instance@", Path("/run/wa-instance"), INSTALLED_SESSIONS)

INSTALLED_PACKS = Path("/run/wa-pack")
PACKS = Kind("wa-pack@", INSTALLED_PACKS, INSTALLED_PACKS, ("--pack",))
"""The process that several workers' sessions share; it stores nothing."""


def object_path(unit: str) -> str:
    """The unit's D-Bus object, escaped as systemd does it."""
    return _UNIT_PATHS + re.sub("[^A-Za-z0-9]", lambda its: f"_{ord(its[0]):02x}", unit)


def unit_of_path(path: str) -> str:
    """The unit behind a D-Bus object; no name of ours where it is no unit's object."""
    escaped = path.removeprefix(_UNIT_PATHS)
    return re.sub("_([0-9a-f]{2})", lambda its: chr(int(its[1], 16)), escaped)


def control_group(unit: str) -> Path:
    """Where the kernel accounts a worker, unless an operator moved it to another slice."""
    return Path("/sys/fs/cgroup/wa.slice") / INSTANCES_SLICE / unit


def template_of(unit: str) -> str:
    return unit.partition("@")[0] + "@.service"


def template_installed(kind: Kind = INSTANCES) -> bool:
    return any((folder / kind.template).exists() for folder in _UNIT_FOLDERS)
