"""The names of the systemd units; no other module spells one."""

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
            # An operator may have started `wa-instance@Some.Thing`, which no instance is named.
            return None

    def runtime_directory(self, id: str) -> Path:
        return self.runtime / parse_instance_id(id)


INSTANCES = Kind("wa-instance@", Path("/run/wa-instance"), INSTALLED_SESSIONS)

INSTALLED_PACKS = Path("/run/wa-pack")
PACKS = Kind("wa-pack@", INSTALLED_PACKS, INSTALLED_PACKS, ("--pack",))
"""The process that several workers' sessions share; it stores nothing."""


def object_path(unit: str) -> str:
    """The unit's D-Bus object, escaped as systemd does it."""
    return _UNIT_PATHS + "".join(
        character
        if character.isascii() and (character.isalpha() or (character.isdigit() and place > 0))
        else "".join(f"_{byte:02x}" for byte in character.encode())
        for place, character in enumerate(unit)
    )


def unit_of_path(path: str) -> str | None:
    """The unit behind a D-Bus object; None when it is no unit's object."""
    if not path.startswith(_UNIT_PATHS):
        return None
    first, *escaped = path[len(_UNIT_PATHS) :].split("_")
    try:
        name = first.encode() + b"".join(
            bytes.fromhex(part[:2]) + part[2:].encode() for part in escaped
        )
        return name.decode()
    except ValueError:
        return None


def control_group(unit: str) -> Path:
    """Where the kernel accounts a worker, unless an operator moved it to another slice."""
    return Path("/sys/fs/cgroup/wa.slice") / INSTANCES_SLICE / unit


def template_of(unit: str) -> str:
    return unit.partition("@")[0] + "@.service"


def template_installed(kind: Kind = INSTANCES) -> bool:
    return any((folder / kind.template).exists() for folder in _UNIT_FOLDERS)
