"""The text of agent.toml and its tables, and where each setting was said."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config.lines import line_of
from agent.config.problem import Problem
from agent.errors import ConfigError

LONGEST = 1 << 20
"""Bytes of a configuration file; above it, it is something else."""


@dataclass(frozen=True, slots=True)
class Told:
    """The file that the settings come from, and the keys that something else gave."""

    words: str = "the defaults"
    base: Path = Path()
    """A relative path in the file is relative to this folder."""
    lines: Mapping[str, int] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    """Key → the variable or the command line that gave it, in words."""

    def refuse(self, key: str, cause: str) -> ConfigError:
        line = line_of(self.lines, key)
        where = self.words if line is None else f"{self.words}, line {line}"
        return ConfigError(f"cannot use {key} in {self.given.get(key, where)}: {cause}", field=key)

    def check(self, name: str, table: str, known: Collection[str], what: str = "key") -> None:
        """ConfigError with the nearest word: there is no such key in that table."""
        if name in known:
            return
        import difflib  # only after a typing mistake: a running agent never needs it

        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise self.refuse(f"{table}{name}", f"there is no such {what}; {advice}")

    def blame(self, problem: Problem) -> ConfigError:
        """Names the place where one of the keys of an impossible pair was set."""
        places: tuple[Collection[str], ...] = (self.given, self.lines, problem.keys)
        first = next(key for place in places for key in problem.keys if key in place)
        return self.refuse(first, problem.cause)

    def path(self, key: str, value: str) -> Path:
        return (Path.cwd() if key in self.given else self.base) / value


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
