"""The mark of a dataclass field that is a setting: its meaning and its range.

Loading, checking and the example file use these marks.
"""

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    meaning: str
    """One line for people, with the unit where there is one."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    restart: bool = False
    """True when only a restart of the agent applies a new value."""
    secret: bool = False
    """True for a value that no listing and no error may show."""
    credentials: bool = False
    """True for a URL that may carry a password."""
    parse: Callable[[Any], Any] | None = None
    """Reads a value that is no plain type; ValueError names the fault."""


def setting(
    default: T,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    restart: bool = False,
    secret: bool = False,
    credentials: bool = False,
    parse: Callable[[Any], Any] | None = None,
) -> T:
    """A field with a default and its mark; mypy sees the default's type."""
    mark = Setting(meaning, low, high, choices, restart, secret, credentials, parse)
    shown = not (secret or credentials)
    made: T = field(default=default, repr=shown, metadata={"setting": mark})
    return made


def settings_of(policy: Any) -> list[tuple[Field[Any], Setting]]:
    """The marked fields of a dataclass (or of one of its values), in their order."""
    return [(one, one.metadata["setting"]) for one in fields(policy) if "setting" in one.metadata]
