"""Acts of WhatsApp as data: what it sends, leaves unanswered, refuses and does at a scan."""

import base64
import time
from random import Random
from typing import Any

STAGES = ("upgrade", "hello", "finish", "first", "now", "now")
CODES = (400, 401, 402, 403, 405, 406, 408, 409, 411, 418, 428, 440, 463, 500, 501, 503, 515, 516)
CLOSES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999)
ODD = ("", "0", "-1", "NaN", "1e308", "9" * 400, "x" * 70_000, "\ud800", "true", "null", "0x10")
NUMBER, TOKEN = "5511977770055", "2@SECRETKEY-of-a-refusal"
"""Planted into the words of refusals."""
QUERIES = (*["encrypt"] * 5, "usync", "w:m", "privacy", "w:sync:app:state", "abt", "w")
Step = dict[str, Any]


def draw(chance: Random) -> list[Step]:
    steps = [_step(chance) for _ in range(chance.randint(2, 5))]
    more = [make(chance) for make in (_queries, _scan, _pairs) if chance.random() < 0.5]
    return sorted([*steps, *more], key=lambda _: chance.random())


def _step(chance: Random) -> Step:
    stage = chance.choice(STAGES)
    if stage == "upgrade":
        return {"stage": stage, "code": chance.choice([301, 400, 403, 404, 429, 500, 502, 503])}
    kinds = (
        "last",
        "last",
        "stanza",
        "stanza",
        "raw",
        "half",
        "sealed",
        "close",
        "drop",
        "silence",
    )
    kind = chance.choice(kinds)
    step = {"stage": stage, "kind": kind, "code": chance.choice(CLOSES), "bytes": _bytes(chance)}
    if kind == "last":
        step["stanza"] = _last_word(chance)
    elif kind == "stanza":
        step["stanza"] = _stanza(chance)
    return step


def _bytes(chance: Random) -> str:
    return base64.b64encode(chance.randbytes(chance.choice([0, 1, 3, 50, 70_000]))).decode()


def _odd(chance: Random) -> str:
    return chance.choice([*ODD, str(chance.choice(CODES)), "60", str(int(time.time()) + 3600)])


def _last_word(chance: Random) -> Step:
    code = chance.choice([str(chance.choice(CODES)), _odd(chance)])
    more = {name: _odd(chance) for name in ("expire", "code", "t") if chance.random() < 0.5}
    kind = chance.choice(["conflict", "xml-not-well-formed", "ack", "x" * 300])
    inner = {"tag": kind, "attrs": {"type": chance.choice(["replaced", _odd(chance)])}}
    return chance.choice(
        [
            {"tag": "failure", "attrs": {**more, "reason": code, "location": "x"}},
            {"tag": "stream:error", "attrs": {"code": code}, "content": [inner]},
            {"tag": "stream:error", "attrs": more, "content": [inner]},
            {"tag": "xmlstreamend", "attrs": more},
        ]
    )


def _stanza(chance: Random) -> Step:
    attrs = {"from": chance.choice(["s.whatsapp.net", _odd(chance)]), "id": _odd(chance)}
    kind = chance.choice(["devices", "account_sync", "encrypt", "server_sync", "w:gp2", "picture"])
    inner = [{"tag": _odd(chance)[:99] or "count", "attrs": {"value": _odd(chance), "t": "1"}}]
    return chance.choice(
        [
            {"tag": "notification", "attrs": {**attrs, "type": kind, "t": "1"}, "content": inner},
            {"tag": "iq", "attrs": {**attrs, "type": chance.choice(["get", "set", "result"])}},
            {"tag": "ib", "attrs": attrs, "content": [{"tag": "offline", "attrs": {"count": "x"}}]},
            {"tag": "ib", "attrs": attrs, "content": [{"tag": "downgrade_webclient", "attrs": {}}]},
            {"tag": "success", "attrs": {"t": _odd(chance), "lid": _odd(chance)}},
            {"tag": "ack", "attrs": {**attrs, "class": "message", "error": _odd(chance)}},
            {"tag": "call", "attrs": attrs, "content": inner},
            {"tag": "presence", "attrs": attrs},
            {"tag": _odd(chance)[:99] or "x", "attrs": attrs, "content": inner},
            _last_word(chance),
        ]
    )


def _pairs(chance: Random) -> Step:
    """A stanza of a pairing, for a session that has one."""
    parts = {
        "link_code_pairing_ref": chance.randbytes(16),
        "link_code_pairing_wrapped_primary_ephemeral_pub": chance.randbytes(80),
        "primary_identity_pub": chance.randbytes(32),
    }
    inner = [
        {"tag": tag, "attrs": {}, "content": {"base64": base64.b64encode(raw).decode()}}
        for tag, raw in parts.items()
        if chance.random() < 0.9
    ]
    kind = "link_code_companion_reg"
    stage = chance.choice(["primary_hello", "primary_hello", "companion_finish", _odd(chance)])
    told = [{"tag": kind, "attrs": {"stage": stage}, "content": inner}]
    ref = [{"tag": "ref", "attrs": {}, "content": {"base64": "cmVm"}}]
    attrs = {"from": "s.whatsapp.net", "id": "1", "t": "1"}
    device = {"tag": "pair-device", "attrs": {}, "content": ref}
    success = {"tag": "pair-success", "attrs": {}, "content": []}
    stanza = chance.choice(
        [
            *[{"tag": "notification", "attrs": {**attrs, "type": kind}, "content": told}] * 3,
            {"tag": "iq", "attrs": {**attrs, "type": "set", "xmlns": "md"}, "content": [device]},
            {"tag": "iq", "attrs": {**attrs, "type": "set", "xmlns": "md"}, "content": [success]},
        ]
    )
    return {"stage": "now", "kind": "stanza", "stanza": stanza}


def _queries(chance: Random) -> Step:
    """From a login on, questions of one kind have no answer, or are refused with many words."""
    words = f"{NUMBER}@s.whatsapp.net not acceptable, token {TOKEN}"
    return {
        "stage": "queries",
        "xmlns": chance.choice(QUERIES),
        "refusal": chance.choice([None, None, {"code": str(chance.choice(CODES)), "text": words}]),
        "login": chance.random() < 0.8,
    }


def _scan(chance: Random) -> Step:
    """A phone scans another session's code while its disk is full from an operation on, or its
    client is killed at that."""
    return {
        "stage": "scan",
        "room": chance.choice([0, 0, 1, 1, 2, 3, 4, 6, 10]),
        "how": chance.choice(["", "", "once", "kill"]),
    }
