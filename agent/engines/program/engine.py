"""The program engine: the user's own bot, kept alive and listened to, and not changed."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from agent.core.words import ConnectionStatus as Status
from agent.engines.base import DECLARED, ProbeAnswer, Qr, Reporter, probe_limit, text
from agent.engines.program import declaration, process, rules, state
from agent.engines.program.declaration import ProgramDeclaration
from agent.engines.tasks import Tasks
from agent.errors import EngineError, InvalidRequest

log = logging.getLogger(__name__)

WITHIN = 600.0
"""Seconds over which the program's ends are counted."""
STEADY = 10.0
"""Seconds that a program which failed must run before its failure counts as over."""
LOOK_EVERY = 1.0
OLD_FRAME = 20.0
"""Seconds after which a frame no longer proves the connection: WhatsApp is asked."""


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "ProgramEngine":
    own = {name: value for name, value in settings.items() if name != DECLARED}
    declared = declaration_of(settings.get(DECLARED))
    return ProgramEngine(folder, rules.read_settings(own).program, declared, reporter)


def declaration_of(row: object) -> ProgramDeclaration | None:
    """Return the row of agent.toml that the agent wrote down; None: there is none of that name."""
    if not isinstance(row, dict):
        return None
    known = {own.name for own in fields(ProgramDeclaration)}
    values: dict[str, Any] = {name: row[name] for name in known & row.keys()}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return ProgramDeclaration(**values)


class ProgramEngine:
    """One program as a session. Only a `connect` starts it."""

    def __init__(
        self, folder: Path, name: str, program: ProgramDeclaration | None, reporter: Reporter
    ) -> None:
        self._folder = folder
        self._name = name
        self._program = program
        self._reporter = reporter
        self._state = state.ProgramState(reporter)
        self._run: process.Process | None = None
        self._last: state.Output | None = None
        self._session = ""
        """The folder in which the program's library says that it keeps its files."""
        self._stopping = False
        self._paired = (folder / rules.NOTE).exists()
        """True also if only an earlier run had a pairing: the next run may end before it reports
        one."""
        self._ousted = False
        """True if another client has the session: this run is being ended, and is heard no more."""
        self._busy = asyncio.Lock()
        self._ends: list[float] = []
        self._watch: asyncio.Task[None] | None = None
        self._tasks = Tasks(reporter.crashed)

    async def connect(self) -> None:
        if self._stopping:
            raise EngineError("cannot connect: the session is stopping", code="stopping")
        async with self._busy:
            # One that runs, and has not said that its session ended, is left to itself.
            ended = self._state.claim.status in (Status.DISCONNECTED, Status.AUTH_FAILURE)
            failing = self._state.claim.reason in (state.ENDED, state.FAILING)
            if self._run is not None and self._run.runs and (failing or not ended):
                return
            await self._end_run()
            try:
                await self._start()
            except EngineError as error:
                self._state.refused(error)

    async def _start(self) -> None:
        if (program := self._program) is None:
            why = f"agent.toml has no [[program]] named {self._name or '(none is set)'}"
            raise EngineError(why, code=declaration.MISSING)
        declaration.refuse_other_user(program)
        if self._paired:
            await asyncio.to_thread(rules.refuse_unusable, self._folder, self._state.claim.account)
        read = declaration.read_environment_file
        of_file = await asyncio.to_thread(read, program.environment_file)
        told = {"WA_INSTANCE": self._folder.parent.name, "WA_SESSION": str(self._folder)}
        if program.watchdog:
            told["WATCHDOG_USEC"] = str(round(program.watchdog * 1e6))
        env = declaration.own_environment(program, of_file, told)
        secrets = declaration.secrets_of(of_file)
        output = self._last = state.Output(self._state.found_crypto, *secrets)
        command = declaration.find_command(program, env)
        place = program.folder or str(self._folder)
        ears = process.Ears(output, self._hear, self._take_notice, self._ended, self._tasks)
        self._run = await process.Process.start(
            command, env, place, ears, preloads=program.library == "auto", pm2=program.pm2
        )
        log.info("started %s as process %d", Path(command[0]).name, self._run.pid)
        self._ousted = False
        if self._state.claim.reason != state.FAILING:
            self._state.begun()
        self._watch = self._tasks.start(self._look_after(self._run, program), "look after")

    def _hear(self, event: Mapping[str, Any]) -> None:
        if self._ousted:
            return
        if event.get("event") == "session":
            self._session = text(event.get("path"), 4096)
            return
        before = self._state.pairing()
        self._state.hear(event)
        claim = self._state.claim
        self._paired = (self._paired or claim.paired) and claim.reason != "logout"
        if claim.reason == "conflict":
            self._ousted = True
            self._tasks.start(self._end_ousted(), "end the ousted")
        if claim.paired and self._state.pairing() != before:
            declared = self._program.session if self._program is not None else ""
            place = declared or self._session
            rules.write_note(self._folder, claim.account, place, self._state.device)

    async def _end_ousted(self) -> None:
        """End an ousted run: it would throw the other client out in turn, without an end."""
        async with self._busy:
            await self._end_run()

    def _take_notice(self, notice: Mapping[str, str]) -> None:
        if status := notice.get("STATUS"):
            self._state.note_status(" ".join(status.split())[:200])

    def _ended(self, why: str) -> None:
        """Take in the end of the program: by itself, or killed because it hung."""
        now, program = time.monotonic(), self._program
        self._run = None
        if self._watch is not None:
            self._watch.cancel()
        self._ends = [at for at in self._ends if now - at < WITHIN] + [now]
        lines = list(self._last.last) if self._last is not None else []
        words = f"{why}; it printed last: {' | '.join(lines)}" if lines else why
        log.warning("the program ended: %s", why)
        self._state.happened("error", code="program_ended")
        if program is not None and len(self._ends) >= program.starts:
            words = f"{len(self._ends)} times in ten minutes; {words}"
            self._state.ended(state.FAILING, words[:1000])
        else:
            self._state.ended(state.ENDED, words[:1000])

    async def _look_after(self, run: process.Process, program: ProgramDeclaration) -> None:
        """Watch over a run without a question of the agent: its library came, it runs steadily, it
        pings."""
        while run.runs:
            if run.speech.ready.done() and not self._state.told:
                self._state.on_ready()
            age = time.monotonic() - run.begun
            if age > STEADY and self._state.claim.reason == state.FAILING:
                self._state.begun()
            silent = time.monotonic() - (run.pinged or run.begun)
            if program.watchdog and silent > program.watchdog:
                run.end_with(f"it sent no WATCHDOG=1 for {silent:.0f} s and was killed")
                return
            process.reap(run.pid)
            if run.speech.ready.done():
                await asyncio.sleep(LOOK_EVERY)
            else:
                await asyncio.wait({run.speech.ready}, timeout=LOOK_EVERY)

    async def disconnect(self) -> None:
        async with self._busy:
            await self._end_run()
        self._state.ended("", "")

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        run = self._run
        if run is None or not run.runs:
            return ProbeAnswer(self._state.current(), {"program": False})
        detail: dict[str, Any] = {"program": True, "pid": run.pid, "tells": self._state.told}
        if run.speech.alive and run.speech.ready.done():
            answer = await self._ask(run, deep=deep)
            self._state.note_look(answer)
            detail["open"] = answer.get("open") is True
        return ProbeAnswer(self._state.current(), detail)

    async def _ask(self, run: process.Process, *, deep: bool) -> Mapping[str, Any]:
        age = self._state.current().proof_age
        ask = deep or age is None or age > OLD_FRAME
        try:
            return await run.speech.look(probe_limit(), ask=ask)
        except EngineError as error:
            if why := run.speech.hangs(error):
                run.end_with(why)
            raise

    async def qr(self) -> Qr | None:
        return self._state.code()

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        raise EngineError("cannot send: the program sends its own messages", code="not_supported")

    mark_read = presence = send

    async def logout(self) -> None:
        run = self._run
        if run is None or not self._state.connected:
            raise EngineError("cannot log out: not connected", code="not_connected")
        await run.speech.call("logout", 15.0)

    async def regenerate_keys(self, peers: list[str]) -> None:
        raise EngineError("cannot renew keys: they are the program's own", code="not_supported")

    async def free_memory(self) -> None: ...

    async def prepare_stop(self) -> None:
        self._stopping = True

    async def save(self) -> None:
        """A program that stops saves by its end; one that goes on saves what its library can
        save."""
        if self._stopping:
            async with self._busy:
                await self._end_run()
        elif (run := self._run) is not None and run.speech.alive and run.speech.ready.done():
            with suppress(EngineError):  # one that cannot saves by itself, as ever
                await run.speech.call("save", 10.0)

    async def close(self) -> None:
        async with self._busy:
            if self._watch is not None:
                self._watch.cancel()
            if (run := self._run) is not None:
                self._run = None
                await run.kill()

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise InvalidRequest(f"cannot {name!r:.40}: a program knows no such command", field="name")

    async def _end_run(self) -> None:
        run, self._run = self._run, None
        if self._watch is not None:
            self._watch.cancel()
        if run is None:
            return
        within = self._program.stop if self._program is not None else 10.0
        if not await run.stop(within, self._reporter.progress):
            log.warning("the program did not end within %g s and was killed", within)
