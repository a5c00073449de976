"""To which machine of the fleet a request goes: answered here, forwarded, or kept for its owner."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from agent.api.fleet.absent import VIEW, SessionRequest, answer_for_absent
from agent.api.fleet.forward import Forwarding, NotOwner, send_json
from agent.api.fleet.listing import Wanted, list_all
from agent.api.fleet.published import PublishedViews
from agent.api.fleet.relay import Relay, Send
from agent.api.http.auth import Caller
from agent.api.http.call import Call, Parts, Route
from agent.api.http.envelope import created
from agent.api.placement import labels_of
from agent.api.present import show_instance
from agent.core.model import Instance, InstanceId
from agent.core.words import COPY_MISSING
from agent.errors import NotFound, TryLater
from agent.fleet.coordinator import MachineRow
from agent.fleet.peers import PeerAway, lost
from agent.supervise.fleet.face import FleetFace

_PATIENCE = 5.0
"""Seconds without an answer after which a request looks whether its machine is still the owner."""
_ON_THEIR_WAY = "its files are on their way"


class FleetDoor:
    def __init__(self, face: FleetFace) -> None:
        self.face = face
        self.views = PublishedViews(face.coordinator)

    async def elsewhere(
        self, request: web.Request, route: Route, parts: Parts, caller: Caller
    ) -> web.StreamResponse | None:
        """The answer of another machine, or in place of one that is away; None: answer it here."""
        text = request.match_info.get("id")
        if text is None or route.anywhere:
            return None
        id, here = InstanceId(text), text in parts.supervisor.views()
        if caller.through:
            if not here:
                raise _not_owner(id, self.face.machine)
            return None
        owner = await self._owner(id, here=here)
        if owner is None or (owner.name == self.face.machine and here):
            return None
        asked = SessionRequest(self.face, self.views, request, route, parts, caller, id)
        waits = route.waits and "wait" in request.rel_url.query
        whole = route.takes_archive
        forwarding = Forwarding(request, parts.section, whole=whole, waits=waits)
        if owner.name != self.face.machine:
            try:
                return await self._forward(asked, forwarding, owner)
            except PeerAway as error:
                return await answer_for_absent(asked, forwarding, owner, str(error))
        return await answer_for_absent(asked, forwarding, owner, _ON_THEIR_WAY)

    def moved(self, id: InstanceId, parts: Parts) -> TryLater | None:
        """Why a session that this machine had a moment ago is not found; None: it is here, or no
        machine has it."""
        directory = self.face.directory
        unknown = directory.known and directory.owner(id) is None
        if id in parts.supervisor.views() or unknown:
            return None
        return _not_owner(id, self.face.machine)

    async def list(self, call: Call, wanted: Wanted) -> dict[str, Any]:
        face = self.face
        return await list_all(call, wanted, face.machine, face.directory, self.views)

    async def create(
        self, call: Call, instance: Instance, body: Mapping[str, Any]
    ) -> web.StreamResponse:
        """On the machine that the fleet chooses."""
        face = self.face
        on, labels, failover = body.get("on", ""), labels_of(body), body.get("failover", "")
        if not call.caller.through:
            row = await face.place(instance, on, labels)
            if row.name != face.machine:
                return await send_json(face.peers, row, call, body)
        view = await face.create(instance, on, labels, failover)
        shown = {**show_instance(view), "machine": face.machine, "as_of_seconds": 0.0}
        return created(shown, f"/api/instance/{instance.id}")

    async def named(
        self, call: Call, id: InstanceId, body: Mapping[str, Any]
    ) -> web.StreamResponse | None:
        """The owner's answer to a request that names its session in its body; None: it is new, or
        this machine's."""
        here = id in call.supervisor.views()
        owner = None if call.caller.through or here else await self._owner(id, here=here)
        if owner is None or owner.name == self.face.machine:
            return None
        return await send_json(self.face.peers, owner, call, body)

    def relay(self, call: Call, send: Send) -> Relay:
        """Of the other machines' live events, for one listener."""
        return Relay(self.face.directory, self.face.peers, call.caller, call.query, send)

    async def of_machine(self, call: Call) -> web.StreamResponse | None:
        """A request without an id that names another machine; None: it is for this one."""
        name = call.query.get("machine", self.face.machine)
        if call.caller.through or name == self.face.machine:
            return None
        row = self.face.directory.machines.get(name)
        if row is None:
            raise NotFound(f"cannot find the machine {name}: the fleet has none of that name")
        return await Forwarding(call.request, call.parts.section).to(
            row, self.face.peers, call.caller
        )

    async def _owner(self, id: InstanceId, *, here: bool) -> MachineRow | None:
        directory = self.face.directory
        if directory.owner(id) is None and not here:
            await directory.look_again()
        return directory.owner(id)

    async def _forward(
        self, asked: SessionRequest, forwarding: Forwarding, owner: MachineRow
    ) -> web.StreamResponse | None:
        """One hop; a second machine is asked only where the directory was old."""
        directory = self.face.directory
        try:
            return await self._patiently(asked, forwarding, owner)
        except NotOwner:
            await directory.look_again()
            newer = directory.owner(asked.id)
        if asked.route.away == VIEW and await self._lacks_files(asked.id):
            return await answer_for_absent(asked, forwarding, newer or owner, _ON_THEIR_WAY)
        if newer is None or newer.id == owner.id or forwarding.sent:
            raise _not_owner(asked.id, owner.name)
        if newer.name == self.face.machine:
            return await self._ours_by_now(asked, forwarding, newer)
        try:
            return await self._patiently(asked, forwarding, newer)
        except NotOwner:
            raise _not_owner(asked.id, newer.name) from None

    async def _lacks_files(self, id: InstanceId) -> bool:
        """Its owner says that it cannot fetch its files."""
        row = await self.views.get(id)
        return row is not None and row.view.get("hold") == COPY_MISSING

    async def _ours_by_now(
        self, asked: SessionRequest, forwarding: Forwarding, owner: MachineRow
    ) -> web.StreamResponse | None:
        if asked.id not in asked.parts.supervisor.views():
            return await answer_for_absent(asked, forwarding, owner, _ON_THEIR_WAY)
        if forwarding.read:
            raise _not_owner(asked.id, owner.name)
        return None

    async def _patiently(
        self, asked: SessionRequest, forwarding: Forwarding, owner: MachineRow
    ) -> web.StreamResponse:
        """A frozen machine keeps its connections: it is given up when it lost its lease."""
        work = forwarding.to(owner, self.face.peers, asked.caller)
        task = asyncio.create_task(work, name=f"forward {asked.id}")
        try:
            while True:
                await asyncio.wait({task}, timeout=_PATIENCE)
                if task.done() or forwarding.answering:
                    return await task
                row = self.face.directory.owner(asked.id)
                if asked.route.away == VIEW:
                    raise PeerAway(f"machine {owner.name} does not answer")
                if row is None or row.id != owner.id or not row.alive:
                    raise lost(owner, TimeoutError())
        finally:
            task.cancel()


def _not_owner(id: str, machine: str) -> TryLater:
    return TryLater(
        f"cannot find {id} on machine {machine}: it changes its machine; try again",
        code="not_owner",
    )
