"""How one family's lines of a session are made from its view; prepared where that saves time."""

from collections.abc import Callable, Iterable, Mapping

from agent.core.view import InstanceView
from agent.metrics.text import number

Piece = Callable[[str, InstanceView], str]
"""The label pair of the session, its view → its lines of one family."""

_LABEL = "\0"
"""Stands in a prepared text where the session's label pair comes."""
_OTHER = "other"


def one_value(name: str, read: Callable[[InstanceView], float | None]) -> Piece:
    def piece(label: str, view: InstanceView) -> str:
        value = read(view)
        return "" if value is None else f"{name}{{{label}}} {number(value)}\n"

    return piece


def state_set(
    name: str, key: str, states: Iterable[tuple[str, str]], read: Callable[[InstanceView], str]
) -> Piece:
    rows = tuple(states)
    ready = {
        now: "".join(
            f'{name}{{{_LABEL},{key}="{word}"}} {1 if state == now else 0}\n'
            for state, word in rows
        )
        for now, _ in rows
    }

    def piece(label: str, view: InstanceView) -> str:
        return ready[read(view)].replace(_LABEL, label)

    return piece


def by_word(
    name: str,
    key: str,
    words: tuple[str, ...],
    read: Callable[[InstanceView], Mapping[str, int]],
    *,
    other: bool = True,
) -> Piece:
    """A counter for each word we know, from the first moment on; the rest together as `other`."""
    shown = (*words, _OTHER) if other else words
    heads = {word: f'{name}{{{_LABEL},{key}="{word}"}} ' for word in shown}
    known = frozenset(words)
    all_zero = "".join(f"{head}0\n" for head in heads.values())

    def piece(label: str, view: InstanceView) -> str:
        found = {word: count for word, count in read(view).items() if count}
        if not found:
            return all_zero.replace(_LABEL, label)
        found[_OTHER] = sum(count for word, count in found.items() if word not in known)
        lines = (f"{head}{found.get(word, 0)}\n" for word, head in heads.items())
        return "".join(lines).replace(_LABEL, label)

    return piece
