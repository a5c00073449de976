"""The calls of a backend's worker: about the server, or about one session that it holds."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from agent.core.words import UNREACHED, InstanceId, parse_instance_id
from agent.engines.base import Backend
from agent.errors import EngineError, NotFound
from agent.link.messages import Call
from agent.worker.backend.server_checks import ServerChecks
from agent.worker.backend.sessions import HeldSessions, Session
from agent.worker.calls import Answer, Work, answer_with, object_of, plain, session_works
from agent.worker.identity import own_settings


class BackendCalls:
    def __init__(
        self,
        name: InstanceId,
        backend: Backend,
        held: HeldSessions,
        checks: ServerChecks,
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self._name = name
        self._backend = backend
        self._held = held
        self._checks = checks
        self._of_server: dict[str, Work] = {
            "hold": self._hold,
            "release": self._release,
            "sessions": self._sessions,
            "hook": self._hook,
            "check": self._check,
            "end": plain(stop),
        }

    def answers_for(self, id: InstanceId) -> bool:
        return id == self._name or id in self._held.sessions

    async def answer(self, call: Call) -> Answer:
        # A session may have its backend's name: what is asked tells which of the two is meant.
        if call.id == self._name and call.do in self._of_server:
            return await answer_with(self._of_server, call)
        session = self._held.sessions.get(call.id)
        if session is None:
            raise NotFound(f"cannot {call.do} {call.id}: this worker holds no such session")
        try:
            return await answer_with(_works(session), call)
        except EngineError as error:
            if error.reached:
                raise
            # Told apart here: the agent's circuit counts failures of what was reached.
            raise EngineError(str(error), code=UNREACHED) from error

    async def _hold(self, args: Mapping[str, Any]) -> Answer:
        id = parse_instance_id(args.get("id"))
        self._held.hold(id, own_settings(object_of(args, "settings", {})))
        return {}

    async def _release(self, args: Mapping[str, Any]) -> Answer:
        self._held.release(parse_instance_id(args.get("id")))
        return {}

    async def _sessions(self, _args: Mapping[str, Any]) -> Answer:
        return {"sessions": [asdict(session) for session in await self._backend.sessions()]}

    async def _hook(self, args: Mapping[str, Any]) -> Answer:
        await self._backend.hook(object_of(args, "told"))
        return {}

    async def _check(self, _args: Mapping[str, Any]) -> Answer:
        claim = await self._backend.check()
        self._checks.heard(claim)
        return {"server": asdict(claim)}


def _works(session: Session) -> dict[str, Work]:
    engine = session.engine

    async def renew(args: Mapping[str, Any]) -> Answer:
        await engine.renew(confirmed=args.get("confirmed") is True)
        return {}

    return session_works(engine, session.reports) | {
        "restart": plain(engine.restart),
        "renew": renew,
    }
