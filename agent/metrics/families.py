"""Makes the lines of one metric of a session from its view; prepares texts where it saves time.
Each function returns the metric's family and the function of its lines."""

from collections.abc import Callable, Iterable, Mapping

from agent.core.view import InstanceView
from agent.metrics.text import COUNTER, GAUGE, SUMMARY, Family, number

Piece = Callable[[str, InstanceView], str]
"""The label pair of the session, its view → its lines of one family."""
Row = tuple[Family, Piece]

_LABEL = "\0"
"""The place of the session's label pair in a prepared text."""
_OTHER = "other"


def value(
    name: str,
    meaning: str,
    read: Callable[[InstanceView], float | None],
    type: str = GAUGE,
) -> Row:
    def piece(label: str, view: InstanceView) -> str:
        number_read = read(view)
        return "" if number_read is None else f"{name}{{{label}}} {number(number_read)}\n"

    return Family(name, type, meaning), piece


def flag(name: str, meaning: str, read: Callable[[InstanceView], bool]) -> Row:
    return value(name, meaning, lambda view: int(read(view)))


def summary(
    name: str,
    meaning: str,
    seconds: Callable[[InstanceView], float],
    count: Callable[[InstanceView], int],
) -> Row:
    def piece(label: str, view: InstanceView) -> str:
        return (
            f"{name}_sum{{{label}}} {number(seconds(view))}\n"
            f"{name}_count{{{label}}} {count(view)}\n"
        )

    return Family(name, SUMMARY, meaning), piece


def labelled(
    name: str,
    meaning: str,
    type: str,
    rows: Iterable[tuple[str, Callable[[InstanceView], float]]],
) -> Row:
    """A line for each of these label texts, each with its value."""
    ready = [(f"{name}{{{_LABEL},{labels}}} ", read) for labels, read in rows]

    def piece(label: str, view: InstanceView) -> str:
        return "".join(f"{head}{number(read(view))}\n" for head, read in ready).replace(
            _LABEL, label
        )

    return Family(name, type, meaning), piece


def state_set(
    name: str,
    meaning: str,
    key: str,
    states: Iterable[tuple[str, str]],
    read: Callable[[InstanceView], str],
) -> Row:
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

    return Family(name, GAUGE, meaning), piece


def by_word(
    name: str,
    meaning: str,
    key: str,
    words: tuple[str, ...],
    read: Callable[[InstanceView], Mapping[str, int]],
    *,
    other: bool = False,
) -> Row:
    """A counter for each word, from the start on; all other words together as `other`."""
    shown = (*words, _OTHER) if other else words
    heads = {word: f'{name}{{{_LABEL},{key}="{word}"}} ' for word in shown}
    named = frozenset(words)
    all_zero = "".join(f"{head}0\n" for head in heads.values())

    def piece(label: str, view: InstanceView) -> str:
        counts = {word: count for word, count in read(view).items() if count}
        if not counts:
            return all_zero.replace(_LABEL, label)
        counts[_OTHER] = sum(count for word, count in counts.items() if word not in named)
        lines = (f"{head}{counts.get(word, 0)}\n" for word, head in heads.items())
        return "".join(lines).replace(_LABEL, label)

    return Family(name, COUNTER, meaning), piece
