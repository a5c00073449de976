"""The files that a backend's worker may read and write, by its user and by its unit."""

import grp
import os
import pwd
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.host.units import BACKENDS
from agent.other_user import User, run_as

WORKER = "wa-worker"
HIDDEN = ("/home", "/root", "/run/user", "/var", "/tmp", "/etc/wa-agent", "/run/wa-agent")
"""Folders that wa-backend@.service hides from its worker."""
UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system")
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Worker:
    """Its user, and the folders and groups that its drop-ins add."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    confined: bool
    """True if it runs in its unit, which hides most folders."""
    shown: tuple[str, ...] = ()
    """Folders that a drop-in lets it see."""
    writable: tuple[str, ...] = ()

    def may(self, path: Path, way: str) -> bool | None:
        """`way` is r, w or x; None: only root or the worker can check it."""
        if os.geteuid() == self.uid:
            return os.access(path, {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}[way])
        if os.geteuid() != 0:
            return None
        try:
            user = User(self.uid, self.gid, self.groups)
            status = run_as(user, ["/usr/bin/test", f"-{way}", path], within=_SECONDS).status
        except OSError:
            return None
        return {0: True, 1: False}.get(status)

    def sees(self, path: Path) -> bool:
        return not self.confined or not _below(path, HIDDEN) or _below(path, self.shown)

    def may_change(self, path: Path) -> bool:
        """By the unit: every folder that it does not name is read-only."""
        return not self.confined or _below(path, self.writable)


def worker_of(backend: str, state: Path, *, installed: bool, root: Path = Path("/")) -> Worker:
    """An installed agent's workers have a user of their own; else they are the agent's own."""
    try:
        row = pwd.getpwnam(WORKER) if installed else pwd.getpwuid(state.stat().st_uid)
    except (KeyError, OSError):
        me = os.geteuid()
        return Worker(f"user {me}", me, os.getegid(), tuple(os.getgroups()), confined=False)
    groups = set(os.getgrouplist(row.pw_name, row.pw_gid))
    confined = installed and (root / "run/systemd/system").is_dir()
    shown, writable = [], []
    for key, value in _drop_ins(backend, root) if confined else ():
        words = [_plain(word) for word in _words(value)]
        if key in ("BindPaths", "BindReadOnlyPaths"):
            shown += words
        if key in ("BindPaths", "ReadWritePaths"):
            writable += words
        if key == "SupplementaryGroups":
            groups |= set(_group_ids(words))
    return Worker(
        row.pw_name,
        row.pw_uid,
        row.pw_gid,
        tuple(sorted(groups)),
        confined,
        tuple(shown),
        tuple(writable),
    )


def environment_of(unit: str, root: Path = Path("/")) -> dict[str, str]:
    """The variables of the unit's drop-ins, an administrator's last."""
    variables: dict[str, str] = {}
    for folder in reversed(UNIT_FOLDERS):
        for file in sorted((root / folder / f"{unit}.d").glob("*.conf")):
            for key, value in _settings(file):
                if key == "Environment":
                    pairs = (word.partition("=") for word in _words(value))
                    variables |= {name: text for name, _, text in pairs}
    return variables


def _drop_ins(backend: str, root: Path) -> Iterator[tuple[str, str]]:
    for folder in UNIT_FOLDERS:
        for unit in (BACKENDS.template, BACKENDS.unit(backend)):
            for file in sorted((root / folder / f"{unit}.d").glob("*.conf")):
                yield from _settings(file)


def _settings(file: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = file.read_text().replace("\\\n", " ").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";", "[")):
            yield key.strip(), value.strip()


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:  # a quote without its end: systemd ignores the line
        return []


def _plain(word: str) -> str:
    """A path (or a group) without its marks and without the path it is bound to."""
    return word.lstrip("-+").partition(":")[0].replace("%%", "%")


def _group_ids(names: list[str]) -> Iterator[int]:
    for name in names:
        try:
            yield int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
        except KeyError:
            continue


def _below(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
