"""The units that an operator enabled or masked with systemctl, read from the unit folders. systemd
lists enabled instances of a template over D-Bus only one by one, so the links are read."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId
from agent.host import units

FOLDERS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))


@dataclass(frozen=True, slots=True)
class UnitFiles:
    enabled: frozenset[InstanceId] = frozenset()
    masked: frozenset[InstanceId] = frozenset()

    def differences(self, other: "UnitFiles") -> frozenset[InstanceId]:
        return (self.enabled ^ other.enabled) | (self.masked ^ other.masked)


def read_unit_files(
    folders: Iterable[Path] = FOLDERS, kind: units.Kind = units.INSTANCES
) -> UnitFiles:
    enabled: set[InstanceId] = set()
    masked: set[InstanceId] = set()
    for folder in folders:
        for name in _names(folder):
            if name.endswith((".wants", ".requires")):
                enabled.update(_ids(_names(folder / name), kind))
        for instance in _ids(_names(folder), kind):
            if _is_mask(folder / kind.unit(instance)):
                masked.add(instance)
    return UnitFiles(frozenset(enabled), frozenset(masked))


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except OSError:  # not there, or removed between two looks
        return []


def _ids(names: Iterable[str], kind: units.Kind) -> list[InstanceId]:
    ids = (kind.id_of(name) for name in names)
    return [instance for instance in ids if instance is not None]


def _is_mask(path: Path) -> bool:
    try:
        return path.readlink() == Path("/dev/null")
    except OSError:
        return False
