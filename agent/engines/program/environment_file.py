"""A program's environment_file: NAME=VALUE lines, as systemd and dotenv write them."""

import errno
import os
import re
import stat
from collections.abc import Iterator

from agent.engines.program.declaration import variable_fault
from agent.errors import EngineError

MISSING = "program_missing"
LONGEST_FILE = 1 << 16
_QUOTED = r"""
    "(?P<double>(?:\\.|[^"\\])*)"[ \t]*(?:\#[^\n]*)?$
    | '(?P<single>[^']*)'[ \t]*(?:\#[^\n]*)?$
"""
_LINE = re.compile(
    rf"""
    [ \t]*(?:
        (?P<nothing>[#;][^\n]*)?$
        | (?:export[ \t]+)?(?P<name>[^\s=]+)[ \t]*=[ \t]*
          (?: {_QUOTED} | (?P<plain>(?:\\\n|[^\n])*)$ )
        | (?P<wrong>[^\n]*)$
    )
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
"""A value in quotes may have several lines, another one goes on behind a backslash at its end."""


def read_environment_file(path: str) -> dict[str, str]:
    """EngineError names the line, and never shows a value."""
    if not path:
        return {}
    try:
        # O_NONBLOCK: a pipe would wait for its writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "it is no plain file")
            text = file.read(LONGEST_FILE + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EngineError(f"cannot read {path} (environment_file): {cause}", code=MISSING) from None
    if len(text) > LONGEST_FILE:
        raise EngineError(f"cannot use {path} (environment_file): it is too long", code=MISSING)
    found = {}
    for number, name, value in _entries("\n".join(text.splitlines())):
        if fault := variable_fault(f"{name}={value}" if name else value):
            raise EngineError(
                f"cannot use line {number} of {path} (environment_file): {fault}", code=MISSING
            )
        found[name] = value
    return found


def _entries(text: str) -> Iterator[tuple[int, str, str]]:
    """The number of its line, name and value of each; no name where a line has none."""
    at = 0
    while at <= len(text):
        match = _LINE.match(text, at)
        assert match is not None, "each line is one of the kinds"
        if match["name"] is not None or match["wrong"]:
            yield text.count("\n", 0, at) + 1, match["name"] or "", _value(match)
        at = match.end() + 1


def _value(match: re.Match[str]) -> str:
    if (double := match["double"]) is not None:
        joined = re.sub(r"\\\n", "", double)
        return re.sub(r"\\([\"\\`$])", r"\1", joined)
    if (single := match["single"]) is not None:
        return single
    return (match["plain"] or "").replace("\\\n", "").strip()
