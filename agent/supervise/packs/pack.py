"""One pack as the agent sees it: its unit, its link, its members."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.clock import boot_now
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus, parse_instance_id
from agent.errors import HostError, InvalidRequest, LinkError, WaError
from agent.host.base import Host
from agent.link.client import Link, LinkStats, Listener

log = logging.getLogger(__name__)

HOLD_WITHIN, RELEASE_WITHIN = 70.0, 90.0
"""Seconds; the pack breaks a member off sooner."""


@dataclass(slots=True, eq=False, repr=False)
class Pack:
    name: InstanceId
    unit: UnitStatus = UNIT_ABSENT
    link: Link | None = None
    members: dict[InstanceId, UnitStatus] = field(default_factory=dict)
    """As its worker told last."""
    stale: bool = True
    """Its worker told that one of them is another."""
    needed_at: float = field(default_factory=boot_now)

    @property
    def used(self) -> bool:
        return any(unit.runs for unit in self.members.values())

    async def look(self, host: Host, stats: LinkStats, wake: Callable[[InstanceId], None]) -> None:
        """Read its unit; attach to a worker that runs; read what it holds."""
        self._note(await host.status(self.name), wake)
        if self.link is None and self.unit.state is UnitState.ACTIVE:
            await self._attach(host, stats, wake)
        if self.link is not None and self.stale:
            await self._read(self.link, wake)

    async def call(self, do: str, id: InstanceId, limit: float, **more: Any) -> UnitStatus:
        if self.link is None:
            raise HostError(f"cannot {do} {id}: the worker of pack {self.name} does not answer")
        try:
            args = {"id": id, "deadline": limit, **more}
            answer = await self.link.call(do, args, timeout=limit + 5.0)
        except WaError as error:
            raise HostError(f"cannot {do} {id} in pack {self.name}: {error}") from error
        self.members[id] = self._status_in(answer.get("member"))
        return self.members[id]

    async def close(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            await link.close()

    def _note(self, unit: UnitStatus, wake: Callable[[InstanceId], None]) -> None:
        """A member runs no longer than its pack; one whose pack begins again does so, too."""
        before, self.unit = self.unit, unit
        if unit.state is UnitState.ACTIVE or (before.run, before.state) == (unit.run, unit.state):
            return
        for id, member in self.members.items():
            if member.runs:
                self.members[id] = UnitStatus(
                    UnitState.ACTIVATING if unit.runs else UnitState.FAILED,
                    run=member.run,
                    restarts=member.restarts,
                    result=unit.result,
                    exit_status=unit.exit_status,
                    since=boot_now(),
                )
                wake(id)

    async def _attach(
        self, host: Host, stats: LinkStats, wake: Callable[[InstanceId], None]
    ) -> None:
        def happened(_run: str, _what: object) -> None:
            self.stale = True
            wake(self.name)

        def lost(_why: str) -> None:
            self.link, self.stale = None, True
            wake(self.name)

        try:
            self.link = await Link.open(
                host.link_path(self.name),
                self.name,
                self.unit.main_pid,
                Listener(lambda _run, _claim: None, happened, lost),
                stats=stats,
            )
        except LinkError as error:
            log.debug("cannot attach to the worker of pack %s: %s", self.name, error)
        else:
            self.stale = True

    async def _read(self, link: Link, wake: Callable[[InstanceId], None]) -> None:
        self.stale = False
        try:
            raw = (await link.call("members", {})).get("members")
        except WaError as error:
            self.stale = True
            log.debug("cannot read the members of pack %s: %s", self.name, error)
            return
        told: dict[InstanceId, UnitStatus] = {}
        for text, status in raw.items() if isinstance(raw, dict) else ():
            try:
                told[parse_instance_id(text)] = self._status_in(status)
            except InvalidRequest as error:
                log.error("pack %s holds a session of no good name: %s", self.name, error)
        before, self.members = self.members, told
        for id in before.keys() | told.keys():
            if before.get(id) != told.get(id):
                wake(id)

    def _status_in(self, raw: object) -> UnitStatus:
        """What is no status of a member counts as none."""
        if not isinstance(raw, Mapping):
            return UNIT_ABSENT
        try:
            state = UnitState(raw.get("state", ""))
        except ValueError:
            return UNIT_ABSENT
        since = raw.get("since")
        return UnitStatus(
            state=state,
            run=_text(raw, "run"),
            main_pid=self.unit.main_pid if state is not UnitState.FAILED else 0,
            restarts=_count(raw, "restarts"),
            result=_text(raw, "result"),
            exit_status=_count(raw, "exit_status"),
            status_text=_text(raw, "status_text"),
            since=float(since) if isinstance(since, int | float) else 0.0,
        )


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    return value[:200] if isinstance(value, str) else ""


def _count(raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key)
    return value if type(value) is int and 0 <= value < 1 << 31 else 0
