"""Acts of a user's own bot towards its worker, by chance."""

from random import Random
from typing import Any

Step = dict[str, Any]
ACCOUNT = "4915112345678"
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 5, 10**30, 1.5, "", "x" * 70_000, "\ud800", "a\nb", "\0", "../../x"),
    *([], {}, [[]], {"a": [1]}, ["logout"], "<b>", "\x1b[2J", "401", "nonsense"),
)
EVENTS = ("ready", "connecting", "qr", "paired", "sync", "open", "close", "message", "ack")
FIELDS = {
    "qr": ("qr", "expires"),
    "paired": ("account",),
    "sync": ("progress",),
    "open": ("account", "version"),
    "close": ("code", "reason", "raw"),
    "message": ("direction", "type", "id", "peer"),
    "ack": ("id", "ack"),
}
LINES = (b"\xff\xfe\n", b"[" * 50_000 + b"\n", b"\0\n", b'{"event":"op', b"5\n", b"{}\n", b"\n")
PRINTS = ("binary", "long", "pieces", "coloured", "control")
FILES = ("link", "pipe", "many", "sparse", "name", "socket")
PROCESSES = ("child", "stray", "deaf", "stops", "worker", "ends")


def draw(chance: Random) -> list[Step]:
    steps = [_step(chance) for _ in range(chance.randint(2, 7))]
    if chance.random() < 0.7:
        steps.insert(0, {"do": "tell", "line": {"event": "open", "account": ACCOUNT}})
    if chance.random() < 0.5:
        steps.append({"do": "process", "kind": chance.choice(PROCESSES)})
    return steps


def _step(chance: Random) -> Step:
    match chance.choice(["tell", "tell", "tell", "raw", "look", "print", "files"]):
        case "tell":
            event = chance.choice(EVENTS)
            told = {key: chance.choice(ODD) for key in FIELDS.get(event, ())}
            return {"do": "tell", "line": {"event": event, **told}}
        case "raw":
            return {"do": "raw", "hex": chance.choice(LINES).hex()}
        case "look":
            return {"do": "answer", "how": {"look": chance.choice([*ODD, True, False])}}
        case "print":
            return {"do": "print", "kind": chance.choice(PRINTS)}
        case _:
            return {"do": "files", "kind": chance.choice(FILES)}
