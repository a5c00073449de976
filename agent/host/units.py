"""The names of the systemd units, which no other module spells; and what is known of the agent's
units: their last properties, kept fresh by systemd's signals, and which of them an operator enabled
or masked. A unit is asked again only when a signal or a listing shows a change."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import clock, errors
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus, parse_instance_id

AGENT_SERVICE = "wa-agent.service"
AGENT_SOCKET = "wa-agent.socket"
AGENT_HTTP_SOCKET = "wa-agent-http.socket"
INSTANCES_SLICE = "wa-instances.slice"

INSTALLED_CACHE = Path("/var/lib/wa-agent/cache")
"""WA_CACHE_PATH of the units as they are shipped."""

_ABOVE = ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
_UNIT_FOLDERS = [Path(folder, "systemd/system") for folder in _ABOVE]
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
    """Arguments of the worker's program, before its name."""

    @property
    def template(self) -> str:
        return f"{self.prefix}.service"

    @property
    def pattern(self) -> str:
        return f"{self.prefix}*.service"

    def unit(self, id: str) -> str:
        return f"{self.prefix}{parse_instance_id(id)}.service"

    def id_of(self, unit: str) -> InstanceId | None:
        """Return the instance whose worker this unit runs; None for other units."""
        if not (unit.startswith(self.prefix) and unit.endswith(".service")):
            return None
        try:
            return parse_instance_id(unit[len(self.prefix) : -len(".service")])
        except errors.InvalidRequest:
            return None  # an operator may have started `wa-instance@Some.Thing`

    def runtime_directory(self, id: str) -> Path:
        return self.runtime / parse_instance_id(id)


INSTANCES = Kind("wa-instance@", Path("/run/wa-instance"), Path("/var/lib/wa-agent/sessions"))

PACKS = Kind("wa-pack@", Path("/run/wa-pack"), Path("/run/wa-pack"), ("--pack",))
"""The kind of the processes that several sessions share; they store nothing."""


def object_path(unit: str) -> str:
    """Return the unit's D-Bus object, escaped as systemd does it."""
    return _UNIT_PATHS + re.sub("[^A-Za-z0-9]", lambda sign: f"_{ord(sign[0]):02x}", unit)


def unit_of_path(path: str) -> str:
    """Return the unit behind a D-Bus object; no name of ours if it is no unit's object."""
    escaped = path.removeprefix(_UNIT_PATHS)
    return re.sub("_([0-9a-f]{2})", lambda sign: chr(int(sign[1], 16)), escaped)


def control_group(unit: str) -> Path:
    """Return the control group of a worker, unless an operator moved it to another slice."""
    return Path("/sys/fs/cgroup/wa.slice") / INSTANCES_SLICE / unit


def template_installed(kind: Kind = INSTANCES) -> bool:
    return any((folder / kind.template).exists() for folder in _UNIT_FOLDERS)


UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"
_OF_UNIT = "ActiveState LoadState Job InvocationID StateChangeTimestampMonotonic"
_OF_SERVICE = "MainPID NRestarts Result ExecMainStatus StatusText"
PROPERTIES = (
    *((UNIT, name) for name in _OF_UNIT.split()),
    *((SERVICE, name) for name in _OF_SERVICE.split()),
)
WANTED = frozenset(name for _, name in PROPERTIES)
LIFE = frozenset({"ActiveState", "MainPID", "NRestarts"})
"""Properties whose change may come with a new InvocationID, which no signal has."""
_STATES = {str(state): state for state in UnitState} | {"reloading": UnitState.ACTIVE}


@dataclass(slots=True)
class _Entry:
    properties: dict[str, Any] | None = None
    """Properties of the unit. None: not asked yet; empty: not loaded."""
    stale: bool = True
    ended: dict[str, Any] = field(default_factory=dict)
    """The end of the run before, which systemd itself forgets at the next start."""


class UnitCache:
    def __init__(self) -> None:
        self._entries: defaultdict[InstanceId, _Entry] = defaultdict(_Entry)

    def known(self) -> list[InstanceId]:
        return list(self._entries)

    def listed(self, rows: Mapping[InstanceId, tuple[str, int]]) -> None:
        """`rows`: active state and job of each loaded unit. Of one that differs from them, systemd
        must be asked; others are forgotten."""
        for instance in self._entries.keys() - rows.keys():
            del self._entries[instance]
        for instance, (active_state, job) in rows.items():
            known = self._entries[instance].properties or {}
            if known.get("ActiveState") != active_state or known.get("Job", (0,))[0] != job:
                self.mark_stale(instance)

    def note_absent(self, instance: InstanceId) -> None:
        """Note that a unit is not loaded: a question would load it, and signal that, for ever."""
        self._entries[instance] = _Entry({}, stale=False)

    def mark_stale(self, instance: InstanceId, *, stale: bool = True) -> None:
        """Mark a unit. `stale` False before a question: later signals are newer than the answer."""
        self._entries[instance].stale = stale

    def answered(self, instance: InstanceId, properties: Mapping[str, Any]) -> UnitStatus:
        entry = self._entries[instance]
        entry.properties = dict(properties)
        return _read(entry.ended, entry.properties)

    def changed(
        self, instance: InstanceId, changed: Mapping[str, Any], invalidated: list[str]
    ) -> bool:
        """PropertiesChanged arrived; says whether there is something new to decide. A status text
        alone is for people; the worker's claims come over its link."""
        entry = self._entries[instance]
        before = entry.properties or {}
        known = {name: value for name, value in changed.items() if name in WANTED}
        different = {name: value for name, value in known.items() if before.get(name) != value}
        unknown = bool(different) and not before
        if unknown or WANTED.intersection(invalidated) or LIFE.intersection(different):
            entry.stale = True
        told = before | different
        entry.properties = told if before else None  # a signal has only a part of them
        if different.get("Result", "success") != "success":
            entry.ended = {n: told.get(n) for n in ("Result", "ExecMainStatus")}
        return entry.stale or bool(different.keys() - {"StatusText"})

    def status(self, instance: InstanceId) -> UnitStatus | None:
        """Return the unit's status; None: systemd must be asked."""
        entry = self._entries.get(instance)
        if entry is None or entry.stale or entry.properties is None:
            return None
        return _read(entry.ended, entry.properties) if entry.properties else UNIT_ABSENT


def _read(ended: Mapping[str, Any], told: Mapping[str, Any]) -> UnitStatus:
    if ended and told["NRestarts"] and told["Result"] == "success":
        told = {**told, **ended}
    # Since boot the machine was suspended for so long. Rounded, or the moment between the two looks
    # would make each answer a different one.
    return read_unit(told, round(clock.boot_now() - time.monotonic(), 3))


def read_unit(properties: Mapping[str, Any], sleep_offset: float) -> UnitStatus:
    """Read a unit. `sleep_offset`: seconds of the boot clock beyond the monotonic one."""
    changed = int(properties["StateChangeTimestampMonotonic"])
    return UnitStatus(
        state=_STATES.get(properties["ActiveState"], UnitState.INACTIVE),
        run=bytes(properties["InvocationID"]).hex(),
        main_pid=int(properties["MainPID"]),
        restarts=int(properties["NRestarts"]),
        result=str(properties["Result"]),
        exit_status=int(properties["ExecMainStatus"]),
        status_text=str(properties["StatusText"]),
        job_pending=properties["Job"][0] != 0,
        masked=properties["LoadState"] == "masked",
        since=changed / 1e6 + sleep_offset if changed else 0.0,
    )


FOLDERS = _UNIT_FOLDERS[:2]


@dataclass(frozen=True, slots=True)
class UnitFiles:
    enabled: frozenset[InstanceId] = frozenset()
    masked: frozenset[InstanceId] = frozenset()


def read_unit_files(kind: Kind) -> UnitFiles:
    """From the links in the unit folders: over D-Bus, systemd lists enabled instances of a template
    only one by one."""
    enabled, masked = set[InstanceId](), set[InstanceId]()
    for folder in FOLDERS:
        for path in _paths(folder):
            if path.suffix in (".wants", ".requires"):
                enabled.update(id for link in _paths(path) if (id := kind.id_of(link.name)))
            elif (id := kind.id_of(path.name)) and _target(path) == "/dev/null":
                masked.add(id)
    return UnitFiles(frozenset(enabled), frozenset(masked))


def _paths(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # not there, or removed between two looks
        return []


def _target(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - as it stands there
    except OSError:
        return ""
