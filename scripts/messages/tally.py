"""Messages that were written and that arrived, and which of them are lost or doubled; pure."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

Sent = tuple[str, str]
"""A text of the load, and WhatsApp's id of the message."""


@dataclass(slots=True)
class Tally:
    """Messages of one session, by the texts of the load."""

    name: str
    said: dict[str, str] = field(default_factory=dict)
    """Text that a contact wrote → WhatsApp's id."""
    read: dict[str, set[object]] = field(default_factory=lambda: defaultdict(set))
    """Text that a reader got → each cursor under which it came."""
    posted: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Text that the webhook's target got → each id of a record, and how often it came."""
    gaps: int = 0
    """Records that a reader learned to be gone."""
    accepted: set[str] = field(default_factory=set)
    """Texts that the agent accepted to send."""
    got: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Text that a contact got → each id of WhatsApp: a phone shows two of one id as one."""

    def unread(self) -> list[str]:
        return [text for text in self.said if text not in self.read]

    def unposted(self) -> list[str]:
        return [text for text in self.said if text not in self.posted]

    def kept_once(self) -> int:
        return sum(len(self.read.get(text, ())) == 1 for text in self.said)

    def lost_in(self) -> int:
        """No consumer may miss one."""
        return len({*self.unread(), *self.unposted()})

    def doubled_in(self) -> int:
        """Kept twice, or given to a consumer under two ids."""
        twice = {text for text, cursors in self.read.items() if len(cursors) > 1}
        return len(twice | {text for text, ids in self.posted.items() if len(ids) > 1})

    def undelivered(self) -> list[str]:
        return [text for text in self.accepted if text not in self.got]

    def delivered_once(self) -> int:
        return sum(len(self.got.get(text, ())) == 1 for text in self.accepted)

    def doubled_out(self) -> int:
        return sum(len(ids) > 1 for ids in self.got.values())

    def is_done(self) -> bool:
        return not (self.unread() or self.unposted() or self.undelivered())

    def held(self) -> bool:
        return not (self.lost_in() or self.doubled_in() or self.undelivered() or self.doubled_out())

    def broke(self) -> list[str]:
        """A line for each thing that must not be."""
        found = {
            "no reader got": self.unread(),
            "the webhook did not get": self.unposted(),
            "kept twice": [text for text, cursors in self.read.items() if len(cursors) > 1],
            "posted under two ids": [text for text, ids in self.posted.items() if len(ids) > 1],
            "no contact got": self.undelivered(),
            "shown twice": [text for text, ids in self.got.items() if len(ids) > 1],
        }
        gaps = [f"{self.name}: a reader was told of {self.gaps} missing"] if self.gaps else []
        return gaps + [
            f"{self.name}: {words} {', '.join(texts[:10])} ({len(texts)} in all)"
            for words, texts in found.items()
            if texts
        ]

    def row(self) -> list[int]:
        return [
            *(len(self.said), self.kept_once(), len(self.said) - len(self.unposted())),
            *(self.lost_in(), self.doubled_in(), len(self.accepted), self.delivered_once()),
            *(len(self.undelivered()), self.doubled_out()),
        ]


HEAD = (
    *("session", "in: written by contacts", "kept once", "at the webhook", "lost", "doubled"),
    *("out: accepted", "exactly once at the contact", "lost", "doubled"),
)


def table(tallies: list[Tally], beside: list[Tally]) -> str:
    """In Markdown, which people read as well: a row for each session, one for all, and those of
    other programs."""
    rows = [[tally.name, *tally.row()] for tally in tallies]
    if len(rows) > 1:
        rows.append(["all", *map(sum, zip(*(tally.row() for tally in tallies), strict=True))])
    rows += [[tally.name, *tally.row()] for tally in beside]
    lines = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
