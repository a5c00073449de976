"""The names of our systemd units. No other module spells one."""

from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest

AGENT_SERVICE = "wa-agent.service"
AGENT_SOCKET = "wa-agent.socket"
INSTANCES_SLICE = "wa-instances.slice"
INSTANCE_TEMPLATE = "wa-instance@.service"
INSTANCE_UNITS = "wa-instance@*.service"
BACKEND_TEMPLATE = "wa-backend@.service"
BACKEND_UNITS = "wa-backend@*.service"

INSTALLED_SESSIONS = Path("/var/lib/wa-agent/sessions")
"""WA_SESSION_ROOT of the units as they are shipped."""

INSTALLED_CACHE = Path("/var/lib/wa-agent/cache")
"""WA_CACHE_PATH of the units as they are shipped."""

_UNIT_FOLDERS = tuple(
    Path(folder) / "systemd/system"
    for folder in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
_UNIT_PATHS = "/org/freedesktop/systemd1/unit/"


def instance_unit(instance: InstanceId) -> str:
    return f"wa-instance@{parse_instance_id(instance)}.service"


def backend_unit(name: str) -> str:
    """Backends are named by the same rule as instances."""
    return f"wa-backend@{parse_instance_id(name)}.service"


def instance_of(unit: str) -> InstanceId | None:
    """The instance whose worker this unit runs; None for every other unit."""
    return _parameter(unit, "wa-instance@")


def backend_of(unit: str) -> str | None:
    return _parameter(unit, "wa-backend@")


def _parameter(unit: str, prefix: str) -> InstanceId | None:
    if not (unit.startswith(prefix) and unit.endswith(".service")):
        return None
    try:
        return parse_instance_id(unit[len(prefix) : -len(".service")])
    except InvalidRequest:
        # An operator may have started `wa-instance@Some.Thing`; it is not one of ours.
        return None


def runtime_directory(instance: InstanceId) -> Path:
    """What RuntimeDirectory= in the unit makes for the worker."""
    return Path("/run/wa-instance") / parse_instance_id(instance)


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


def template_installed() -> bool:
    return any((folder / INSTANCE_TEMPLATE).exists() for folder in _UNIT_FOLDERS)
