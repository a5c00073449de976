"""Adds rows to an array of tables of agent.toml, for the person who gave the command; every other
line stays. The agent itself never writes that file."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.config.load import load_config
from agent.errors import ConfigError, InvalidRequest, Refused

Rows = Sequence[Mapping[str, Any]]


def add_rows(
    path: Path, table: str, rows: Rows, lines: str, *, env: Mapping[str, str], what: str
) -> None:
    """Adds rows of [[table]], as `lines`, at its end. `what` is for errors. The file stays as it is
    where the agent could not use the old or the new one."""
    doing = f"cannot {what} {path}"
    try:
        load_config(path, env)
        text = path.read_text(encoding="utf-8-sig")
        more = ("" if text.endswith("\n") else "\n") + f"\n{lines}"
        if not _adds(text, text + more, table, rows):
            words = f"write each of its {table}s as a [[{table}]]"
            raise ConfigError(f"cannot add a {table} to agent.toml: {words}", field=table)
    except ConfigError as error:
        cure = "correct the file first: wa-agent config check"
        raise Refused(f"{doing}: {error}; {cure}", code="config_wrong") from None
    try:
        load_config(path, env, text=text + more)
        # At the end: what an editor writes meanwhile is not lost.
        with path.open("ab") as file:
            file.write(more.encode())
    except ConfigError as error:
        raise InvalidRequest(f"{doing}: {error}", field=error.field) from None
    except OSError as error:
        cure = "a person who may write it does so, with sudo for one"
        raise Refused(f"{doing}: {error.strerror}; {cure}", code="config_not_writable") from error


def _adds(text: str, changed: str, table: str, rows: Rows) -> bool:
    """Whether the change adds these rows, and nothing else."""
    wanted = tomllib.loads(text)
    try:
        wanted.setdefault(table, []).extend(dict(row) for row in rows)
        return tomllib.loads(changed) == wanted
    except (tomllib.TOMLDecodeError, AttributeError):
        return False
