"""Reads the file of variables that the storage of the profiles' repository needs."""

import os
from collections.abc import Mapping
from pathlib import Path

from agent.errors import ConfigError

_LARGEST = 1 << 20
_OWN = ("RESTIC_", "LD_")
"""Variables with these beginnings are not taken from the file."""


def read_env_file(path: Path) -> Mapping[str, str]:
    """NAME=VALUE lines: what the repository's storage needs to let us in."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, encoding="utf-8") as file:
            status = os.fstat(fd)
            if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
                raise _bad_env(path, "give it mode 0600 and the agent's user as owner")
            lines = file.read(_LARGEST).splitlines()
    except UnicodeDecodeError:
        raise _bad_env(path, "it is not UTF-8") from None
    except OSError as error:
        raise _bad_env(path, error.strerror or str(error)) from error
    variables = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier() or name.startswith(_OWN):
            raise _bad_env(path, f"line {number} must be NAME=VALUE, a variable of the storage")
        variables[name] = value
    return variables


def _bad_env(path: Path, cause: str) -> ConfigError:
    return ConfigError(f"cannot read {path}: {cause}", field="fleet.profiles_env_file")
