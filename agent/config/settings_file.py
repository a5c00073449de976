"""Adds rows to an array of tables of agent.toml, for the person who gave the command; every other
line stays. The agent itself never writes that file."""

import fcntl
import os
import shutil
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.config.load import load_config
from agent.errors import ConfigError, InvalidRequest, Refused, TryLater
from agent.files import write_whole

Rows = Sequence[Mapping[str, Any]]


def add_rows(
    path: Path, table: str, rows: Rows, lines: str, *, env: Mapping[str, str], what: str
) -> Path:
    """Adds rows of [[table]], as `lines`; returns the backup. `what` is for errors. The file stays
    as it is where the agent could not use the old or the new one."""
    doing = f"cannot {what} {path}"
    try:
        path = path.resolve(strict=True)
        # One change at a time: each begins with what the one before wrote.
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                load_config(path, env)
            except ConfigError as error:
                cure = "correct the file first: wa-agent config check"
                raise Refused(f"{doing}: {error}; {cure}", code="config_wrong") from None
            before = path.read_bytes()
            changed = _with_rows(before.decode("utf-8-sig"), table, rows, lines)
            try:
                load_config(path, env, text=changed)
            except ConfigError as error:
                raise InvalidRequest(f"{doing}: {error}", field=error.field) from None
            return _write(path, before, changed.encode(), doing)
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8"
        cure = "a person who may write it does so, with sudo for one"
        raise Refused(f"{doing}: {cause}; {cure}", code="config_not_writable") from error


def _with_rows(text: str, table: str, rows: Rows, lines: str) -> str:
    """The text with more rows. ConfigError: it would change more."""
    changed = "\n".join([*text.splitlines(), "", lines])
    wanted = tomllib.loads(text)
    try:
        wanted.setdefault(table, []).extend(dict(row) for row in rows)
        good = tomllib.loads(changed) == wanted
    except (tomllib.TOMLDecodeError, AttributeError):
        good = False
    if not good:
        words = f"write each of its {table}s as a [[{table}]]"
        raise ConfigError(f"cannot add a {table} to agent.toml: {words}", field=table)
    return changed


def _write(path: Path, before: bytes, changed: bytes, doing: str) -> Path:
    stem = f"{path.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    taken = len(list(path.parent.glob(f"{stem}*")))
    backup = path.with_name(f"{stem}.{taken}" if taken else stem)
    for target, content in ((backup, before), (path, changed)):
        # An editor takes no lock of ours.
        if path.read_bytes() != before:
            words = "it was changed meanwhile, and that change stays; give the command again"
            raise TryLater(f"{doing}: {words}", code="config_changed")
        status = path.stat()
        write_whole(target, content, mode=status.st_mode & 0o777, group=status.st_gid)
        if os.geteuid() == 0:
            shutil.chown(target, status.st_uid)
    return backup
