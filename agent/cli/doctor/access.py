"""The files that the agent may read and write, by its user and by its unit."""

import grp
import os
import pwd
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.other_user import User, run_as

USER, UNIT = "wa-agent", "wa-agent.service"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders that the unit hides from the agent."""
HOMES = ("/home", "/root", "/run/user")
UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system")
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent's user, and the folders and groups that drop-ins of its unit add."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    confined: bool
    """True if it runs in its unit, which hides some folders and lets it write in none."""
    shown: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()

    def may(self, path: Path, way: str) -> bool | None:
        """`way` is r, w or x; None: only root or the agent can check it."""
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


def lines_for(path: Path, *, write: bool) -> str:
    """The lines for `systemctl edit wa-agent` with which the unit lets the agent reach the path."""
    bind = "BindPaths" if write else "BindReadOnlyPaths"
    lines = ["[Service]"]
    if _below(path, HOMES):
        lines.append("ProtectHome=tmpfs")  # below what is closed nothing can be shown
    hidden = _below(path, HIDDEN)
    lines.append(f'{bind}="-{path}"' if hidden or not write else f'ReadWritePaths="-{path}"')
    return f"systemctl edit wa-agent, with the lines {' · '.join(lines)}; then restart it"


def agent_of(state: Path, *, installed: bool, root: Path = Path("/")) -> Agent:
    """An installed agent has a user of its own."""
    try:
        row = pwd.getpwnam(USER) if installed else pwd.getpwuid(state.stat().st_uid)
    except (KeyError, OSError):
        me = os.geteuid()
        return Agent(f"user {me}", me, os.getegid(), tuple(os.getgroups()), confined=False)
    groups = set(os.getgrouplist(row.pw_name, row.pw_gid))
    confined = installed and (root / "run/systemd/system").is_dir()
    shown, writable = [], []
    for key, value in _drop_ins(UNIT, root) if confined else ():
        words = [_plain(word) for word in _words(value)]
        if key in ("BindPaths", "BindReadOnlyPaths"):
            shown += words
        if key in ("BindPaths", "ReadWritePaths"):
            writable += words
        if key == "SupplementaryGroups":
            groups |= set(_group_ids(words))
    user = row.pw_name, row.pw_uid, row.pw_gid, tuple(sorted(groups))
    return Agent(*user, confined, tuple(shown), tuple(writable))


def environment_of(unit: str, root: Path = Path("/")) -> dict[str, str]:
    """The variables of the unit's drop-ins, an administrator's last."""
    variables: dict[str, str] = {}
    for key, value in _drop_ins(unit, root):
        if key == "Environment":
            pairs = (word.partition("=") for word in _words(value))
            variables |= {name: text for name, _, text in pairs}
    return variables


def _drop_ins(unit: str, root: Path) -> Iterator[tuple[str, str]]:
    for folder in reversed(UNIT_FOLDERS):
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
