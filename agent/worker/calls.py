"""The agent's calls to a session's engine, each with its deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from agent.engines.base import Engine
from agent.errors import EngineError, InvalidRequest
from agent.link.wire import Call
from agent.worker.reports import Reports

LONGEST_DEADLINE = 600.0

Answer = Mapping[str, Any]
Work = Callable[[Mapping[str, Any]], Awaitable[Answer]]


async def answer_with(works: Mapping[str, Work], call: Call) -> Answer:
    if (work := works.get(call.do)) is None:
        raise InvalidRequest(f"cannot {call.do}: no such call", field="do")
    wanted = call.args.get("deadline", 10.0)
    if not isinstance(wanted, int | float) or isinstance(wanted, bool) or wanted <= 0:
        raise InvalidRequest("cannot keep a deadline that is not a number", field="deadline")
    deadline = min(float(wanted), LONGEST_DEADLINE)
    try:
        async with asyncio.timeout(deadline):
            return await work(call.args)
    except TimeoutError as error:
        why = f"cannot {call.do}: the engine took longer than {deadline:.1f} s"
        raise EngineError(why, code="timeout") from error


def session_works(engine: Engine, reports: Reports) -> dict[str, Work]:
    async def probe(args: Mapping[str, Any]) -> Answer:
        answer = await engine.probe(deep=args.get("deep") is True)
        return {"claim": asdict(reports.renew(answer.claim)), "detail": dict(answer.detail)}

    async def qr(_args: Mapping[str, Any]) -> Answer:
        code = None if reports.pairing.suspect else await engine.qr()
        return {"qr": None if code is None else asdict(code)}

    def given(key: str, method: Callable[[Answer], Awaitable[Answer | None]]) -> Work:
        async def work(args: Mapping[str, Any]) -> Answer:
            return await method(object_of(args, key)) or {}

        return work

    async def regenerate_keys(args: Mapping[str, Any]) -> Answer:
        peers = args.get("peers")
        if not isinstance(peers, list) or not all(isinstance(peer, str) for peer in peers):
            raise InvalidRequest("cannot regenerate keys: peers is not a list", field="peers")
        await engine.regenerate_keys(peers)
        return {}

    async def command(args: Mapping[str, Any]) -> Answer:
        name = args.get("name")
        if not isinstance(name, str):
            raise InvalidRequest("cannot do a command: it has no name", field="name")
        if reports.pairing.suspect and name in ("pairing_code", "scan"):
            why = "it was paired and came up unpaired; restore its files first"
            raise EngineError(f"cannot pair it: {why}", code="suspect")
        return await engine.command(name, object_of(args, "arguments"))

    return {
        "connect": plain(engine.connect),
        "disconnect": plain(engine.disconnect),
        "logout": plain(engine.logout),
        "prepare_stop": plain(engine.prepare_stop),
        "free_memory": plain(engine.free_memory),
        "probe": probe,
        "qr": qr,
        "send": given("message", engine.send),
        "mark_read": given("asked", engine.mark_read),
        "presence": given("asked", engine.presence),
        "regenerate_keys": regenerate_keys,
        "command": command,
    }


def plain(method: Callable[[], Awaitable[None]]) -> Work:
    async def work(_args: Mapping[str, Any]) -> Answer:
        await method()
        return {}

    return work


def object_of(args: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = args.get(key)
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"cannot use {key}: not an object", field=key)
    return value
