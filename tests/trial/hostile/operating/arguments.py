"""Each argument and field of a command has values here, which are typed and sent."""

import re
from collections.abc import Mapping
from random import Random
from typing import Any

from agent.api.http.call import Field
from tests.trial.hostile.operating.commands import (
    BACKENDS,
    DEAF,
    ENDS,
    LEFT_OPTIONS,
    LINKED,
    ROUTES_END,
    Step,
    commands,
    routes,
)

_ANY: Mapping[str, tuple[Any, ...]] = {
    "config": ("@config",), "state": ("@state",), "wait": (0, 1, 3),
    "status": ("CONNECTED", "nonsense"), "word": ("needed", "not-needed"),
    "to": ("5511999999999", "x"), "text": ("hello",), "file": ("@file", "@full"),
    "contact": ("Ann,5511999999999",),
    "type": ("text",), "address": ("here",), "idempotency_key": ("once", "again"),
    "for": (1,), "limit": (5,), "kind": ("repair_step",),
    "group": ("sandbox", "evolution"),
    "program": ("nobody",), "dump": ("@file",),
    "webhook": ("nobody",), "snapshot": ("@snapshot",), "key_id": ("@key",), "key": ("@key",),
    "source": ("@archive", "@bot", "@bot"),
    "only": ("one", "nobody"), "keys": ("nobody",), "scope": ("read",),
    "scopes": (["read"],), "fault": ("crash", "drop", "slow"),
    "peers": (["5511999999999"],), "phone": ("+55 11 99999-0001",),
    "backend": ("eu", "srv", "nobody"), "remote": ("shop", "7", "nobody"),
    "engine": (), "settings": (), "set": (), "name": ("nobody",), "removed": ("@removed",),
    "needed": (True, False), "before": (5,), "after": (5,), "instance": (["a"],),
    "ids": (["a"], ["nobody"]), "per_minute": (60,), "bytes_per_second": (1000,),
    "url": ("http://127.0.0.1:9/x",), "content": ("AAAA",), "mimetype": ("image/png",),
    "filename": ("x.png",), "caption": ("c",), "latitude": (1,), "longitude": (2,),
    "message_id": ("x",), "emoji": ("x",), "failed": ("20260101T000000Z",),
    "of": ("3EB0",), "count": (1, 3), "message": ("out_x",), "cancel": ("out_x",),
    "expires_in": (60,), "chat": ("1@g.us", "x"), "media": ("m:x",), "out": ("@file",),
    "quote": ("3EB0", "out_x"), "quote_from": ("5511999999999", "x"),
    "mentions": (["5511999999999"], ["x"]), "sender": ("5511999999999", "x"),
    "seconds": (1, 5), "message_ids": (["3EB0"],),
}  # fmt: skip
_HERE: Mapping[str, tuple[Any, ...]] = {
    "restore name": ("@snapshot",), "trash restore name": ("@trash",),
    "removed restore name": ("@removed",), "key add name": ("bot",),
    "POST /api/trash/{name}/restore name": ("@trash",), "POST /api/keys name": ("bot",),
    "config init config": ("@file",),
    "GET /api/instances status": (["CONNECTED"],),
    "GET /api/events kind": (["repair_step"],), "GET {I}/events kind": (["repair_step"],),
    "screenshot file": ("@file",), "export to": ("wa-agent", "baileys"),
    "delete confirm": ("delete shop", "nobody"),
    "DELETE {I} confirm": ("delete shop", "nobody"),
    "backends add address": ("http://127.0.0.1:9",), "backends add key_file": ("@file",),
    "backends add adopt": ("nobody",),
    "sandbox say contact": ("5511999999999", "x"), "sandbox say kind": ("message", "call", "x"),
    "sandbox say fields": ("{}", '{"emoji": "x"}', "x"), "POST {I}/sandbox/say fields": ({},),
    "sandbox say group": ("1@g.us",), "POST {I}/sandbox/say group": ("1@g.us",),
}  # fmt: skip
"""Values of an argument: by its command and its name, or by its name."""


def _value(chance: Random, where: str, name: str, id: str) -> Any:
    if name == "engine":
        return f"@engine:{id}"
    if name in ("set", "settings"):
        settings = _settings(chance, id)
        return settings if name == "settings" else "=".join(*settings.items())
    own = {"id": id, "wanted": id, "instanceName": id, "confirm_passkey": id}
    own |= dict(zip(("backend", "remote"), BACKENDS.get(id, ("nobody", "nobody")), strict=True))
    own |= {"name": id} if where == "POST /api/v1/whatsapp/setup" else {}
    if name in own and chance.random() < 0.95:
        return own[name]
    value = chance.choice(_HERE.get(f"{where} {name}", _ANY.get(name, ("nobody",))))
    if isinstance(value, str) and value.startswith("@") and ":" not in value:
        return f"{value}:{chance.randrange(4)}"
    return value


def _settings(chance: Random, id: str) -> dict[str, Any]:
    own = {"url": "@whatsapp" if id == "wa" else DEAF} if id in LINKED else {"scan": "auto"}
    # Without its address a session would ask the real WhatsApp.
    return own if id in LINKED or chance.random() < 0.8 else {"nonsense": "1"}


def draw_command(chance: Random, words: str, id: str) -> Step:
    argv = words.split()
    for action in commands()[words].actions:
        if action.dest in LEFT_OPTIONS:
            continue
        if not action.option_strings:
            if action.nargs != "?" or chance.random() < 0.6:
                argv.append(str(_value(chance, words, action.dest, id)))
        elif action.nargs == 0:
            likely = {"once": 1.0, "dry_run": 0.1, "all": 0.2}.get(action.dest, 0.4)
            argv += [action.option_strings[-1]] if chance.random() < likely else []
        elif chance.random() < _likely(action.dest, id, required=action.required):
            if action.choices and f"{words} {action.dest}" not in _HERE:
                argv += [action.option_strings[-1], str(chance.choice([*action.choices]))]
                continue
            argv += [action.option_strings[-1], str(_value(chance, words, action.dest, id))]
    flag = ENDS.get(words)
    ends = flag is not None and (not flag or flag in argv) and "--dry-run" not in argv
    if words == "delete" and id in BACKENDS:
        ends = "--remote" in argv
    return {"do": "cli", "argv": argv, "id": id, "ends": ends, "json": chance.random() < 0.3}


def draw_request(chance: Random, name: str, id: str, **told: Any) -> Step:
    """`told`: fields of the body or of the query that are as given."""
    route = routes()[name]

    def drawn(fields: tuple[Field, ...]) -> dict[str, Any]:
        named = {field.name: field for field in fields}
        return {
            key: told[key] if key in told else _field(chance, name, field, id)
            for key, field in named.items()
            if key in told or chance.random() < _likely(key, id, required=field.required)
        }

    body: Any = None if route.body is None and route.method == "GET" else drawn(route.body or ())
    if route.method == "POST" and route.body is None:
        body = f"@archive:{chance.randrange(4)}"
    query = drawn(route.query)
    flag = ROUTES_END.get(name)
    said = {**(body if isinstance(body, dict) else {}), **query}
    gentle = name.endswith("/fault") and said.get("fault") in ("crash", "drop", "slow", None)
    ends = flag is not None and (not flag or said.get(flag) is True) and not gentle
    if name == "DELETE {I}" and id in BACKENDS:
        ends = query.get("remote") is True  # else its backend keeps the session
    path = name.partition(" ")[2].replace("{I}", "/api/instance/{id}").replace("{id}", id)
    for key in re.findall(r"{(\w+)}", path):
        where = name if f"{name} {key}" in _HERE else ""
        backend = key == "name" and "/api/backends/" in path
        found = _value(chance, where, "backend" if backend else key, id)
        path = path.replace(f"{{{key}}}", str(found))
    asked = [route.method, path, query, body]
    return {"do": "api", "name": name, "ask": asked, "id": id, "ends": ends}


def _field(chance: Random, where: str, field: Field, id: str) -> Any:
    if field.kind is bool:
        return chance.random() < 0.6
    if field.choices and f"{where} {field.name}" not in _HERE and field.name != "engine":
        return chance.choice(field.choices)
    return _value(chance, where, field.name, id)


def _likely(name: str, id: str, *, required: bool) -> float:
    """How often an argument is given."""
    if required:
        return 1.0
    if name in ("backend", "remote"):
        return 0.95 if id in BACKENDS else 0.02
    if name in ("engine", "set", "settings"):
        return 1.0 if name == "engine" or id in LINKED else 0.3
    usual = {"confirm": 0.5, "confirm_passkey": 0.3, "wait": 0.6, "fault": 0.95, "for": 0.9}
    usual |= {"id": 0.9, "replace": 0.6, "only": 0.5, "config": 0.6}
    return usual.get(name, 0.2)


def draw_script(chance: Random) -> Step:
    argv = [chance.choice(["all", "7", "7", "8"])] * chance.choice([0, 1, 1, 1])
    return {"do": "script", "argv": argv, "id": "desk", "ends": False, "own": chance.random() < 0.8}
