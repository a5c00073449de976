"""What the agent may ask of a worker, each with its deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from agent.engines.base import Engine
from agent.errors import EngineError, InvalidRequest
from agent.link.messages import Call, wire_claim
from agent.worker.reports import Reports

DEADLINE = 10.0
LONGEST_DEADLINE = 600.0

Work = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class Calls:
    """Answers the link's calls with one engine. `stop` ends the worker in order."""

    def __init__(
        self,
        engine: Engine,
        reports: Reports,
        stop: Callable[[], Awaitable[None]],
        share: Callable[[], object],
    ) -> None:
        """`share`: lets the agent read what a save wrote."""
        self._engine = engine
        self._reports = reports
        self._share = share
        self._stop = stop
        self._known: dict[str, Work] = {
            "connect": self._plain(engine.connect),
            "disconnect": self._plain(engine.disconnect),
            "logout": self._plain(engine.logout),
            "save": self._plain(self._save),
            "prepare_stop": self._plain(engine.prepare_stop),
            "free_memory": self._plain(engine.free_memory),
            "close": self._plain(stop),
            "probe": self._probe,
            "qr": self._qr,
            "send": self._send,
            "regenerate_keys": self._regenerate_keys,
            "command": self._command,
        }

    async def answer(self, call: Call) -> Mapping[str, Any]:
        work = self._known.get(call.do)
        if work is None:
            raise InvalidRequest(f"cannot {call.do}: no such call", field="do")
        deadline = _deadline(call.args)
        try:
            async with asyncio.timeout(deadline):
                return await work(call.args)
        except TimeoutError as error:
            raise EngineError(
                f"cannot {call.do}: the engine took longer than {deadline:.1f} s", code="timeout"
            ) from error

    def _plain(self, method: Callable[[], Awaitable[None]]) -> Work:
        async def work(_args: Mapping[str, Any]) -> Mapping[str, Any]:
            await method()
            return {}

        return work

    async def _save(self) -> None:
        try:
            await self._engine.save()
        finally:
            self._share()

    async def _probe(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = await self._engine.probe(deep=args.get("deep") is True)
        self._reports.renew(answer.claim)
        return {"claim": wire_claim(answer.claim), "detail": dict(answer.detail)}

    async def _qr(self, _args: Mapping[str, Any]) -> Mapping[str, Any]:
        qr = await self._engine.qr()
        return {"qr": None if qr is None else asdict(qr)}

    async def _send(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._engine.send(_object(args, "message"))

    async def _regenerate_keys(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        peers = args.get("peers")
        if not isinstance(peers, list) or not all(isinstance(peer, str) for peer in peers):
            raise InvalidRequest("cannot regenerate keys: peers is not a list", field="peers")
        await self._engine.regenerate_keys(peers)
        return {}

    async def _command(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        name = args.get("name")
        if not isinstance(name, str):
            raise InvalidRequest("cannot do a command: it has no name", field="name")
        return await self._engine.command(name, _object(args, "arguments", {}))


def _deadline(args: Mapping[str, Any]) -> float:
    wanted = args.get("deadline", DEADLINE)
    if not isinstance(wanted, int | float) or isinstance(wanted, bool) or wanted <= 0:
        raise InvalidRequest("cannot keep a deadline that is not a number", field="deadline")
    return min(float(wanted), LONGEST_DEADLINE)


def _object(
    args: Mapping[str, Any], key: str, default: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    value = args.get(key, default)
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"cannot use {key}: not an object", field=key)
    return value
