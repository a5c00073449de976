"""The mark of a dataclass field that is a setting: its meaning and its range. Loading, checking,
the example file and the forms of the page use these marks."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import Field, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agent.core.words import ID_PATTERN

T = TypeVar("T")


class Setting(NamedTuple):
    meaning: str
    """One line for people, with the unit if there is one."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    restart: bool = False
    """True if only a restart of the agent applies a new value."""
    secret: bool = False
    """True if no listing and no error may show the value."""
    credentials: bool = False
    """True if the URL may carry a password."""
    check: Callable[[Any], str] | None = None
    """Returns the fault of a value that has the right type; "" = it can be used."""


HIDDEN = "***"
LARGEST = 1e9
"""The largest number that is not whole, as seconds are: sums and products stay finite."""

Fault = tuple[tuple[str, ...], str]
"""Keys that cannot be true together, the one to blame first, and why."""


def setting(default: T, meaning: str, **mark: Any) -> T:
    """Make a field with a default and a mark (`mark`: of Setting); mypy sees the default's type."""
    shown = not (mark.get("secret") or mark.get("credentials"))
    return field(default=default, repr=shown, metadata={"setting": Setting(meaning, **mark)})


def settings_of(policy: Any) -> list[tuple[Field[Any], Setting]]:
    """Return the marked fields of a dataclass (or of one of its values), in their order."""
    return [(own, own.metadata["setting"]) for own in fields(policy) if "setting" in own.metadata]


def read_value(value: Any, default: Any, mark: Setting) -> Any:
    """Return the value in the default's type; ValueError names the fault. bool is no number."""
    shown = f"{value!r:.80}" if not (mark.secret or mark.credentials) else HIDDEN
    if default is None or isinstance(default, bool):
        good, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        good, wanted = is_whole(value), "a whole number"
    elif isinstance(default, float):
        good, wanted = type(value) is float or is_whole(value), "a number"
        value = float(value) if good else value
    elif isinstance(default, tuple):
        good = isinstance(value, list) and all(isinstance(part, str) and part for part in value)
        wanted = "a list of texts"
        value = tuple(value) if good else value
    else:
        wanted = "a path" if isinstance(default, Path) else "a text"
        good = isinstance(value, str) and "\0" not in value and bool(value or wanted == "a text")
    if fault := _fault(value, mark) if good else f"it must be {wanted}, not {shown}":
        raise ValueError(fault)
    return type(default)(value) if isinstance(default, Path | StrEnum) else value


def _fault(value: Any, mark: Setting) -> str:
    if mark.choices and value not in mark.choices:
        return choice_fault(value, mark.choices)
    if mark.low is not None and value < mark.low:
        return f"it must be at least {mark.low:g}, not {value!r}"
    high = LARGEST if mark.high is None and isinstance(value, float) else mark.high
    if high is not None and not value <= high:  # nan is neither more nor less
        return f"it must be at most {high:g}, not {value!r}"
    return mark.check(value) if mark.check is not None else ""


def name_fault(text: str) -> str:
    """Return the fault of the name of a row, such as of a [[backend]]; "" = none."""
    words = "1 to 48 of a-z, 0-9, - and _, beginning with a letter or digit"
    return "" if re.fullmatch(ID_PATTERN, text) else f"it must be {words}, not {text!r:.80}"


def path_fault(text: str) -> str:
    bad = text and (not text.startswith("/") or ".." in text.split("/"))
    return f"it must be an absolute path without .., not {text!r:.80}" if bad else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """A question with the known word that is most like it, in any case; "" = none is. The dashes of
    an option are no likeness."""
    import difflib  # only after a typing mistake: a running agent never needs it

    words = {it.casefold().lstrip("-"): it for it in known}
    near = difflib.get_close_matches(word[:80].casefold().lstrip("-"), words, n=1)
    return f"did you mean {words[near[0]]}?" if near else ""


def choice_fault(word: object, known: Collection[str]) -> str:
    """Return the fault of a word that is none of the known ones, with the nearest of them."""
    fault = f"it must be one of {', '.join(known)}, not {word!r:.80}"
    near = nearest(str(word), known)
    return f"{fault}; {near}" if near else fault


def is_whole(value: Any) -> bool:
    """True if the value is a whole number of 64 bits: a longer one breaks SQLite and JSON."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63
