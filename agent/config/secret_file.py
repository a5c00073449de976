"""Reads a secret from a file of its own. No error shows its content."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.errors import ConfigError

log = logging.getLogger(__name__)

LONGEST_SECRET = 16 * 1024
"""Characters of a key or a password; a longer file is something else."""


def read_secret(path: str, whose: str, field: str, fault: Callable[[str], str]) -> str:
    """The file's one line. `whose` is for the error; `fault` says what is wrong with a text."""

    def refuse(cause: str) -> ConfigError:
        return ConfigError(f"cannot read {path} ({whose}): {cause}", field=field)

    try:
        with Path(path).open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(LONGEST_SECRET + 1)
    except UnicodeDecodeError:
        raise refuse("it is not UTF-8") from None  # the error's own text shows what it holds
    except OSError as error:
        raise refuse(error.strerror or str(error)) from error
    if len(text) > LONGEST_SECRET:
        raise refuse(f"it is longer than {LONGEST_SECRET} characters")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise refuse("it is empty")
    if problem := fault(text):
        raise refuse(problem)
    if stat.S_IMODE(mode) & 0o004:
        log.warning("%s is open to every user: chmod o-rwx %s", path, path)
    return text
