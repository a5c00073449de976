"""Acts of an Evolution server, of what stands before it, and of people on it, as data."""

from random import Random
from typing import Any

Step = dict[str, Any]
VERSIONS = ("1.8.6", "1.8.6", "2.3.7")
PAIRED = ("paired", "paired-too")
WAITS = "shows-a-code"
MADE = "made-here"
"""The agent itself made it on the server; all others were there before."""
ADOPTED = ("paired", WAITS)
NAMES = (*PAIRED, WAITS, MADE)
ROUTES = ("", "connectionState", "/instance/connect/", "fetchInstances", "setPresence", "create")
ROUTES += ("fetchBusinessProfile", "logout")
FAULTS = ("slow", "html", "failing", "licence", "refused", "half", "empty", "earlier", "reset")
FAULTS += ("echo", "echo", "lost")
PROXIES = ("/chat/", "/chat/", "/settings/", "/proxy/")
"""Routes that a proxy need not pass for sessions to be known as open."""
ODD = (None, True, -1, 10**20, "", "x" * 3000, [], {}, [[1]], {"a": {}}, "\ud800", "NaN")


def draw(chance: Random) -> list[Step]:
    first = {"do": "server", "version": chance.choice(VERSIONS), "seed": chance.randrange(10**6)}
    if chance.random() < 0.3:
        first["without"] = chance.choice(PROXIES)
    first["packs"] = chance.random() < 0.2
    kinds = (_fault, _fault, _happens, _look, _look, _look, _wait, _row)
    kinds += (_person, _next_agent)
    return [first, *(chance.choice(kinds)(chance) for _ in range(chance.randint(6, 18)))]


def _fault(chance: Random) -> Step:
    kind = chance.choice([*FAULTS, ""])
    late = sorted(chance.uniform(1.0, 10.0) for _ in range(2))
    status = chance.choice([200, 201, 400, 401, 403, 404, 409, 422, 500])
    route = chance.choice(ROUTES)
    return {"do": "fault", "kind": kind, "route": route, "late": late, "status": status}


def _happens(chance: Random) -> Step:
    """Over there: to a session, to WhatsApp, to the server."""
    what = ["silent", "back", "drop", "drop", "scan", "restart", "dead", "stuck"]
    return {"do": "happens", "what": chance.choice(what), "name": chance.choice(NAMES)}


def _person(chance: Random) -> Step:
    """A person deletes the session with the server's own page."""
    if chance.random() < 0.5:
        return _look(chance)
    return {"do": "delete", "name": chance.choice(ADOPTED)}


def _next_agent(chance: Random) -> Step:
    """The agent ends, at once or in the middle of what it was asked, and another one begins."""
    return {"do": "agent", "in": chance.choice(["", "renew", "renew", "connect"])}


def _look(chance: Random) -> Step:
    asked = ["probe", "probe", "probe", "deep", "connect", "restart", "qr", "pairing_code", "renew"]
    return {"do": "ask", "asked": [chance.choice(asked) for _ in range(chance.randint(1, 6))]}


def _wait(chance: Random) -> Step:
    return {"do": "wait", "seconds": chance.choice([0.5, 3.0, 30.0])}


def _row(chance: Random) -> Step:
    """A person with the server's key makes a session of that name there."""
    odd = [".", "..", "../..", "a/b", "%2e%2e", "-rf", "--help", "x" * 5000, " ", "\n", "\u202e"]
    field = chance.choice(["", "ownerJid", "connectionStatus", "disconnectionAt", "updatedAt"])
    value = chance.choice([each for each in ODD if each != "\ud800"])
    return {"do": "row", "name": chance.choice(odd), "field": field, "value": value}
