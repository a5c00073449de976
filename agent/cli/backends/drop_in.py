"""The paths and groups that a backend's worker needs besides its own folder, as a drop-in.

The unit hides /home and /var and allows no writing, so logs, auth folders and sockets of other
programs must be named. An operator gives the rights on them; the text says how.
"""

import grp
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.errors import ConfigError
from agent.host import units

JOURNAL = "/var/log/journal"
_HIDDEN_HOMES = ("home", "root")
_NEVER_SHOWN = PurePosixPath("/etc/wa-agent")
_UNUSABLE = frozenset("\"'\\")


@dataclass(frozen=True, slots=True)
class _Reach:
    read: tuple[str, ...]
    """Folders; a bound file would stay the old one when its log is rotated."""
    write: tuple[str, ...]
    groups: tuple[str, ...]
    remarks: tuple[str, ...]


def drop_in_path(name: str) -> Path:
    return Path("/etc/systemd/system") / f"{units.BACKENDS.unit(name)}.d" / "reach.conf"


def owning_group(path: Path) -> str:
    """The group that may use this socket; "" when none is needed or known."""
    try:
        status = path.stat()
        needed = not status.st_mode & stat.S_IWOTH and status.st_gid != 0
        return grp.getgrgid(status.st_gid).gr_name if needed else ""
    except (OSError, KeyError):
        return ""


def render_reach(
    name: str, settings: Mapping[str, Any], group_of: Callable[[Path], str] = owning_group
) -> str:
    """The drop-in's text; "" when the shipped unit is enough."""
    reach = _reach_of(settings, group_of)
    if not (reach.read or reach.write or reach.groups or reach.remarks):
        return ""
    rights = [(path, "rX") for path in reach.read if path != JOURNAL]
    rights += [(path, "rwX") for path in reach.write]
    lines = [f"# {drop_in_path(name)}", f"# What the worker of backend {name} must reach."]
    lines += [f"# {remark}" for remark in reach.remarks]
    if rights:
        lines.append("# The user wa-worker needs rights there; where it has none yet:")
    for path, letters in rights:
        grant = f"u:wa-worker:{letters}"
        lines.append(f'#   setfacl -R -m {grant} -m d:{grant} "{path}"')
    lines.append("[Service]")
    if any(PurePosixPath(path).parts[1] in _HIDDEN_HOMES for path in (*reach.read, *reach.write)):
        # Empty instead of closed: below what is closed nothing can be shown.
        lines.append("ProtectHome=tmpfs")
    lines += [f"BindReadOnlyPaths={_word(path)}" for path in reach.read]
    lines += [f"BindPaths={_word(path)}" for path in reach.write]
    if reach.groups:
        lines.append(f"SupplementaryGroups={' '.join(reach.groups)}")
    return "\n".join(lines) + "\n"


def _reach_of(settings: Mapping[str, Any], group_of: Callable[[Path], str]) -> _Reach:
    read: list[str] = []
    groups: list[str] = []
    remarks: list[str] = []
    for source in settings.get("logs", ()):
        kind, _, what = str(source).partition(":")
        if kind == "journal":
            read.append(JOURNAL)
            groups.append("systemd-journal")
        elif kind == "command":
            program = (what.split() or ["a command"])[0]
            remarks.append(f"What {program!a:.80} itself reads, and its group, are yours to add;")
            remarks.append("a program of Node.js needs MemoryDenyWriteExecute=no as well.")
        elif what:
            read.append(_folder_of(kind, what.strip()))
    if ca_file := str(settings.get("ca_file", "")):
        hidden = _is_hidden(ca_file)
        if _NEVER_SHOWN in PurePosixPath(ca_file).parents:
            remarks.append(f"{ca_file} is never shown to a worker: put it into /etc/ssl.")
        elif hidden:
            read.append(str(PurePosixPath(ca_file).parent))
    if socket := _redis_socket(str(settings.get("redis_url", ""))):
        if _is_hidden(socket):
            read.append(str(PurePosixPath(socket).parent))
        if group := group_of(Path(socket)):
            groups.append(group)
        else:
            remarks.append(f"Add the group of {socket} to SupplementaryGroups if it has one.")
    write = [_above_id(str(settings["auth_folder"]))] if settings.get("auth_folder") else []
    shown = [path for path in dict.fromkeys(read) if path not in write]
    for path in (*shown, *write):
        _check(path)
    return _Reach(
        tuple(shown), tuple(write), tuple(dict.fromkeys(groups)), tuple(dict.fromkeys(remarks))
    )


def _folder_of(kind: str, what: str) -> str:
    path = PurePosixPath(what)
    if kind == "folder" or (kind == "pm2" and path.name == "logs"):
        return str(path)
    return str(path.parent)  # of a file, or of PM2's logs/APP


def _above_id(template: str) -> str:
    """The folder above the part that differs for each session."""
    above = PurePosixPath("/")
    for part in PurePosixPath(template).parts[1:]:
        if "{id}" in part:
            break
        above /= part
    return str(above)


def _redis_socket(url: str) -> str:
    if not url.startswith("unix://"):
        return ""
    path = unquote(urlsplit(url).path)
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def _is_hidden(path: str) -> bool:
    first = _check(path)[1]
    return first in ("var", "tmp", *_HIDDEN_HOMES)


def _check(path: str) -> tuple[str, ...]:
    """The path's parts; ConfigError for one that no unit can name, or that would show too much."""
    parts = PurePosixPath(path).parts
    if not path.startswith("/") or ".." in parts or len(parts) < 2:
        raise ConfigError(f"cannot let a worker reach {path!r:.200}: not a path below /")
    if path in ("/home", "/root", "/var", "/etc", "/run", "/usr", "/proc", "/sys", "/dev"):
        raise ConfigError(f"cannot let a worker reach {path}: too much would be shown")
    if not path.isprintable() or _UNUSABLE & set(path):
        raise ConfigError(f"cannot let a worker reach {path!r:.200}: a unit cannot name it")
    return parts


def _word(path: str) -> str:
    """A path that is missing at the start is left out, and seen after the next start."""
    return f'"-{path.replace("%", "%%")}"'
