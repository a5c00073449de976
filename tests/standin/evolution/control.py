"""Commands to a running stand-in over HTTP, on a port of its own: POST /VERB with a JSON object.

add {name, state, count}   scan {name}       drop {name, code}   end {name, code}
set {name|share, stuck|dead|outdated|row…}   message {name, id}  ack {name, id, status}
fault {fault, seconds, only}                 restart {away}      list_seconds {seconds}
stats {}                                     state {name}
"""

import asyncio
from typing import Any

from aiohttp import web

from tests.standin.evolution.instances import Instance
from tests.standin.evolution.server import StandIn

FLAGS = ("stuck", "dead", "outdated", "creds")


class Control:
    def __init__(self, standin: StandIn) -> None:
        self._standin = standin
        app = web.Application()
        app.router.add_post("/{verb}", self._command)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self.port = 0

    @classmethod
    async def open(cls, standin: StandIn, port: int = 0) -> "Control":
        made = cls(standin)
        await made._runner.setup()
        site = web.TCPSite(made._runner, "127.0.0.1", port)
        await site.start()
        made.port = made._runner.addresses[0][1]
        return made

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _command(self, request: web.Request) -> web.Response:
        told = await request.json() if request.can_read_body else {}
        try:
            answer = await obey(self._standin, request.match_info["verb"], told)
        except (KeyError, ValueError, TypeError) as error:
            return web.json_response({"error": repr(error)}, status=400)
        return web.json_response(answer)


async def obey(standin: StandIn, verb: str, told: dict[str, Any]) -> dict[str, Any]:
    """One command; the same for tests that hold the stand-in themselves."""
    match verb:
        case "add":
            return _add(standin, told)
        case "fault":
            await standin.front.set(
                told["fault"], float(told.get("seconds", 1)), str(told.get("only", ""))
            )
        case "restart":
            await standin.restart_process(float(told.get("away", 0.1)))
        case "list_seconds":
            standin.list_seconds = float(told["seconds"])
        case "set":
            return _set(standin, told)
        case "stats":
            return {
                "asked": dict(standin.asked),
                "most_at_once": standin.most_at_once,
                "webhooks_sent": standin.webhooks.sent,
                "webhooks_failed": standin.webhooks.failed,
                "states": _states(standin),
            }
        case _:
            return _one(standin, standin.instances[told["name"]], verb, told)
    return {}


def _add(standin: StandIn, told: dict[str, Any]) -> dict[str, Any]:
    count = int(told.get("count", 1))
    for number in range(count):
        name = told["name"] if count == 1 else f"{told['name']}-{number:04}"
        standin.add(name, told.get("state", "close"))
    return {"count": len(standin.instances)}


def _set(standin: StandIn, told: dict[str, Any]) -> dict[str, Any]:
    """On one instance, or on a share of all (the first ones by name)."""
    if "name" in told:
        chosen = [standin.instances[told["name"]]]
    else:
        every = [standin.instances[name] for name in sorted(standin.instances)]
        chosen = every[: round(len(every) * float(told["share"]))]
    for instance in chosen:
        for flag in FLAGS:
            if flag in told:
                setattr(instance, flag, told[flag])
        if "row" in told:
            instance.row.set(**told["row"])
        if told.get("stuck") is True or told.get("outdated") is True:
            instance.connect()
    return {"count": len(chosen)}


def _one(standin: StandIn, instance: Instance, verb: str, told: dict[str, Any]) -> dict[str, Any]:
    match verb:
        case "scan":
            return {"scanned": instance.scan()}
        case "drop":
            instance.drop(int(told["code"]))
        case "end":
            instance.end(int(told["code"]))
        case "state":
            return {"state": instance.state, "creds": instance.creds, "code": instance.code}
        case "message":
            key = {"remoteJid": "5511777776666@s.whatsapp.net", "id": told["id"]}
            body = {"key": {**key, "fromMe": told.get("fromMe", False)}}
            body |= {"messageType": "conversation", "message": {"conversation": "hello"}}
            standin.webhooks.tell(instance, "messages.upsert", body)
        case "ack":
            update = {"keyId": told["id"], "fromMe": True, "status": told["status"]}
            standin.webhooks.tell(instance, "messages.update", update)
        case _:
            raise ValueError(f"no such command: {verb}")
    return {}


def _states(standin: StandIn) -> dict[str, int]:
    found: dict[str, int] = {}
    for instance in standin.instances.values():
        word = instance.state or "not loaded"
        found[word] = found.get(word, 0) + 1
    return found


async def forever() -> None:
    await asyncio.Event().wait()
