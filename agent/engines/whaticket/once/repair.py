"""One session of a round: what is to be done with it, and what became of it."""

import time
from dataclasses import dataclass, replace
from functools import partial

from agent.core.words import ConnectionStatus
from agent.engines.remote.answers import ServerDown
from agent.engines.whaticket import key_changes
from agent.engines.whaticket.down_and_up import DownAndUp
from agent.engines.whaticket.keys.removed import PUT_BACK_ALREADY
from agent.engines.whaticket.keys.store import SessionStore
from agent.engines.whaticket.once.options import Options
from agent.engines.whaticket.once.say import Voice
from agent.engines.whaticket.once.state_file import Down, Memory
from agent.engines.whaticket.rows import Row, claim_of_row
from agent.engines.whaticket.server import WhaticketServer
from agent.errors import EngineError, WaError

RECOVERED, CLEANED = "recovered", "started over: scan its new code"
_SCAN = "needs a person: scan its code"


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done with one session."""

    session: str
    why: str
    peers: tuple[str, ...] = ()
    damaged: bool = False
    cut_off: bool = False
    """A round before this one took it down: it comes up, whatever becomes of the rest."""
    only_up: bool = False
    """That round had done the rest."""
    reset: bool = False
    put_back: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    text: str
    status: int = 0
    needs_person: bool = False

    @property
    def good(self) -> bool:
        return self.status == 0


@dataclass(frozen=True, slots=True)
class Repairer:
    server: WhaticketServer
    store: SessionStore
    options: Options
    memory: Memory
    voice: Voice

    async def plan(self, task: Task) -> str:
        """What would be done; nothing is."""
        if task.only_up:
            return "start-session, wait"
        if task.put_back:
            return f"disconnect, put back {task.put_back}, start-session, wait"
        self._must_hold_keys()
        if task.reset:
            plan = await self.store.plan_all(task.session)
        else:
            plan = await key_changes.plan_records(
                self.store, task.session, task.peers, damaged=task.damaged
            )
            if not plan:
                return "nothing: no record to remove, so nothing would be interrupted"
        for name in (*plan.files, *plan.keys):
            self.voice.note("INFO", task.session, f"would remove {name}")
        what = f"{len(plan.files)} files and {len(plan.keys)} keys"
        return f"disconnect, back up and remove {what}, start-session, wait"

    async def carry_out(self, task: Task) -> Result:
        begun = time.monotonic()
        self.voice.note("INFO", task.session, f"{task.why}: it begins")
        try:
            result = await self._act(task)
        except WaError as error:
            result = _failure(error)
        self._settle(task, result, time.monotonic() - begun)
        return result

    async def _act(self, task: Task) -> Result:
        round = self._round(task)
        await round.look()  # an unknown session, a server that is away: nothing was touched yet
        if task.only_up:
            await round.come_up()
            return Result(RECOVERED)
        try:
            return await self._change_keys(round, task)
        except EngineError as error:
            if not task.cut_off:
                raise
            await round.come_up()
            if error.code not in (key_changes.NOTHING, PUT_BACK_ALREADY):
                raise
            return Result(RECOVERED)

    async def _change_keys(self, round: DownAndUp, task: Task) -> Result:
        self._must_hold_keys()
        if task.reset:
            return await self._reset(round, task)
        if task.put_back:
            await key_changes.put_back(
                round, task.put_back, going_down=lambda: self._note_down(task)
            )
            return Result(f"{task.put_back} is put back")
        await key_changes.regenerate(
            round,
            task.peers,
            damaged=task.damaged,
            going_down=lambda: self._note_down(task),
            taken=lambda: self._note_taken(task),
        )
        return Result(RECOVERED)

    async def _reset(self, round: DownAndUp, task: Task) -> Result:
        await key_changes.start_over(round, going_down=lambda: self._note_down(task))
        row = await round.wait("get a code of", lambda row: row.asks or row.connected)
        return Result(CLEANED if row.asks else RECOVERED)

    def _must_hold_keys(self) -> None:
        if not self.store.usable:
            raise EngineError(
                "cannot repair: neither SESSIONS_DIR nor REDIS_URL says where the keys are",
                code="config",
            )

    def _note_down(self, task: Task) -> None:
        down = Down(
            time.time(),
            task.why,
            task.peers,
            task.damaged,
            reset=task.reset,
            put_back=task.put_back,
        )
        self.memory.is_down(task.session, down)

    def _note_taken(self, task: Task) -> None:
        down = self.memory.down[task.session]
        self.memory.is_down(task.session, replace(down, taken=True))

    def _settle(self, task: Task, result: Result, seconds: float) -> None:
        memory, stats = self.memory, self.memory.stats
        if result.good:
            if task.reset:
                stats.cleaned += 1
            elif not task.put_back:
                stats.repaired += 1
            if not task.put_back:
                stats.repair_seconds += seconds
            memory.forget_errors(task.session)
            self.voice.note("INFO", task.session, f"{result.text} in {seconds:.1f} s")
        else:
            stats.failed += 1
            stats.needed_person += result.needs_person
            self.voice.note("ERROR", task.session, result.text)
        if result.good or result.needs_person or result.status == 3:
            memory.down.pop(task.session, None)
        memory.save()

    def _round(self, task: Task) -> DownAndUp:
        options = self.options
        return DownAndUp(
            self.server,
            self.store,
            options.backend,
            task.session,
            partial(self.voice.note, "INFO", task.session),
            options.tries,
            options.pause,
            options.poll,
        )


def is_left_down(row: Row | None) -> bool:
    """A person disconnected it at the server: after a drop these servers start it by themselves."""
    return row is not None and row.status.upper() == "DISCONNECTED"


def is_down_still(row: Row) -> bool:
    """Nothing brings it up by itself: it is down, or dropped."""
    status = claim_of_row(row).status
    return status is not ConnectionStatus.CONNECTED


def _failure(error: WaError) -> Result:
    if error.code == "pairing_lost":
        return Result(_SCAN, 1, needs_person=True)
    return Result(str(error), status_of(error))


def status_of(error: WaError) -> int:
    """The exit status that says what it is."""
    if isinstance(error, ServerDown):
        return _STATUS_OF_REASON.get(error.reason, 1)
    return _STATUS_OF_CODE.get(error.code, error.exit_status)


_STATUS_OF_CODE = {"remote_missing": 3, "config": 78}
_STATUS_OF_REASON = {"unreachable": 5, "timeout": 5, "tls": 5, "refused_key": 4, "not_found": 3}
