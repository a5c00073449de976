"""Adds rows to an array of tables of agent.toml, for the person who gave the command; every other
line stays. The agent itself never writes that file."""

import os
from collections.abc import Mapping
from pathlib import Path

from agent.config.load import load_config
from agent.errors import ConfigError, InvalidRequest, Refused


def add_rows(path: Path, lines: str, *, env: Mapping[str, str], what: str) -> None:
    """Adds `lines`, which begin with a [[table]], at the end: what an editor writes meanwhile is
    not lost. `what` is for errors. The file stays as it is where the agent could not use the old or
    the new one."""
    doing = f"cannot {what} {path}"
    try:
        load_config(path, env)
    except ConfigError as error:
        cure = "correct the file first: wa-agent config check"
        raise Refused(f"{doing}: {error}; {cure}", code="config_wrong") from None
    try:
        text = path.read_text(encoding="utf-8-sig")
        more = ("" if text.endswith("\n") else "\n") + f"\n{lines}"
        load_config(path, env, text=text + more)
        size = path.stat().st_size
        try:
            with path.open("ab") as file:
                file.write(more.encode())
        except OSError:
            os.truncate(path, size)  # a full disk took half of it
            raise
    except ConfigError as error:
        raise InvalidRequest(f"{doing}: {error}", field=error.field) from None
    except OSError as error:
        cure = "a person who may write it does so, with sudo for one"
        raise Refused(f"{doing}: {error.strerror}; {cure}", code="config_not_writable") from error
