"""Small files of our own that are old or new after any crash, never half of each."""

import json
import os
from pathlib import Path
from typing import Any

from agent.errors import EngineError
from agent.files import write_whole

LARGEST = 16 << 20


def make_private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise failed("create", folder, error) from error
    return folder


def write_private(path: Path, content: bytes) -> None:
    """Mode 0600; when this returns, the new content is on the disk."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise failed("write", path, error) from error


def write_json(path: Path, raw: Any) -> None:
    write_private(path, json.dumps(raw, indent=1).encode() + b"\n")


def read_json(path: Path) -> Any:
    """None when it is not there or is none: what is kept here is never needed to go on."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return None


def failed(verb: str, path: Path | str, error: OSError) -> EngineError:
    return EngineError(f"cannot {verb} {path}: {cause_of(error)}", code="files")


def cause_of(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
