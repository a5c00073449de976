"""Where the values of the settings come from: a file's text and tables, and the words of an error
about a key in it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config.lines import line_of
from agent.errors import ConfigError

LONGEST = 1 << 20
"""Bytes of a configuration file; above it, it is something else."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, a variable or the command line."""

    words: str
    base: Path
    """What a relative path in it is relative to."""
    lines: Mapping[str, int]

    def refuse(self, key: str, cause: str) -> ConfigError:
        line = line_of(dict(self.lines), key)
        where = self.words if line is None else f"{self.words}, line {line}"
        return ConfigError(f"cannot use {key} in {where}: {cause}", field=key)


def read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
        if len(raw) > LONGEST:
            raise ConfigError(f"cannot read {path}: it is longer than {LONGEST} bytes")
        return raw.decode("utf-8-sig")  # some editors put a mark in front
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"cannot read {path}: it is not UTF-8 at line {line}") from None


def parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        last = f"at line {text.count(chr(10)) + 1}, the last"
        cause = str(error).replace("at end of document", last)
        raise ConfigError(f"cannot read {path}: {cause}") from None
    except ValueError:  # Python's own limit
        cause = "a number in it has thousands of digits"
        raise ConfigError(f"cannot read {path}: {cause}") from None


def nearest(name: str, known: list[str]) -> str:
    import difflib  # only after a typing mistake: a running agent never needs it

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
