"""Runs a program once: starts it, speaks to it if it speaks, ends it with all that it started."""

import asyncio
import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.engines.baileys import client
from agent.engines.program.declaration import MISSING, preload_into
from agent.engines.program.state import Output
from agent.engines.tasks import Tasks
from agent.errors import EngineError

# pm2 gives the programs that it runs process.send, and a standard input that stays open.

_CHUNK = 1 << 16


class LikePm2:
    """A channel of Node's own for messages, in lines of JSON. What the program sends is read, so
    that it never waits, and dropped."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.input, self._silent = os.pipe()
        """The program's standard input, and its other end, which writes nothing."""
        self.number = self._theirs.fileno()
        self.environment = {
            "NODE_CHANNEL_FD": str(self.number),
            "NODE_CHANNEL_SERIALIZATION_MODE": "json",
        }

    def begin(self) -> None:
        """Begin the channel: the program has its ends now."""
        self._close_theirs()
        self._ours.setblocking(False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def ask_to_end(self) -> None:
        with suppress(OSError):
            self._ours.send(b'"shutdown"\n')

    def close(self) -> None:
        self._close_theirs()
        if self._ours.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._ours)
            self._ours.close()
            os.close(self._silent)

    def _close_theirs(self) -> None:
        if self._theirs.fileno() >= 0:
            self._theirs.close()
            os.close(self.input)

    def _read(self) -> None:
        with suppress(OSError):
            if not self._ours.recv(_CHUNK):
                asyncio.get_running_loop().remove_reader(self._ours)


# All processes that a program started: they are the worker's, also those that left its group.

_PR_SET_CHILD_SUBREAPER = 36
ROUNDS, PAUSE = 20, 0.02


def adopt_orphans() -> None:
    """Let orphans of a process below become this worker's children: none gets lost."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Return the processes below this one, all generations, parents first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - strings will do
            with suppress(OSError):
                children += map(int, Path(f"/proc/{pid}/task/{task}/children").read_bytes().split())
    return children


def reap(but: int) -> None:
    """Reap orphans that ended; `but`: the child that its Process waits for."""
    for pid in _children(os.getpid()):
        if pid != but:
            with suppress(ChildProcessError, OSError):
                os.waitpid(pid, os.WNOHANG)


def kill_all(waited: int) -> None:
    """Every process below this worker, which starts nothing else. Blocks for moments. `waited`: the
    child that its Process waits for, which is not waited for here."""
    for _ in range(ROUNDS):
        left = {pid for pid in descendants(os.getpid()) if _lives(pid)}
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap(waited)
        if not left:
            break
        time.sleep(PAUSE)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


_CREDENTIALS = struct.Struct("3i")
_LONGEST = 4096
_AT_ONCE = 64

OnNotice = Callable[[dict[str, str]], None]


class Notices:
    """A socket without a file: its name is in the program's environment. The kernel names the
    sender; one of another user is not heard. What comes before `hear` waits in the socket. There is
    no room for the files that sd_notify may send to keep (FDSTORE=1): the kernel closes them."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"wa-program-{os.getpid()}-{os.urandom(16).hex()}"
        self._socket.bind(f"\0{name}")
        self.address = f"@{name}"

    def hear(self, on_notice: OnNotice) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._read, on_notice)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self, on_notice: OnNotice) -> None:
        for _ in range(_AT_ONCE):
            try:
                text, ancillary, _flags, _ = self._socket.recvmsg(
                    _LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except OSError:
                return
            if _sender(ancillary) == os.geteuid():
                lines = text.decode("utf-8", "replace").splitlines()
                pairs = (line.partition("=") for line in lines)
                on_notice({name: value for name, mark, value in pairs if mark})


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(_CREDENTIALS.unpack(content[: _CREDENTIALS.size])[1])
    return -1


SOCKET = "WA_PROGRAM_FD"
"""The variable with the number of the descriptor on which a program may speak."""
OUTPUT_AFTER = 1.0
"""Seconds in which the program's last output is read once it ended."""


@dataclass(frozen=True, slots=True)
class Ears:
    """The hearers of what a run of a program says."""

    output: Output
    event: client.OnEvent
    notice: Callable[[Mapping[str, str]], None]
    end: Callable[[str], None]
    """Gets how the program ended, unless `stop` or `kill` ended it."""
    tasks: Tasks


class Process:
    """One run of a program. `speech` is the conversation; it is heard from the first `ready` on."""

    def __init__(
        self, process: asyncio.subprocess.Process, speech: client.Conversation, notices: Notices
    ) -> None:
        self.pid = process.pid
        self.speech = speech
        self.begun = time.monotonic()
        self.pinged: float | None = None
        """Time of the program's last WATCHDOG=1."""
        self.notices = notices
        self._process = process
        self._tasks: list[asyncio.Task[None]] = []
        self._expected = False
        self._why = ""
        self._like_pm2: LikePm2 | None = None
        self._by_message = False

    @classmethod
    async def start(
        cls,
        command: list[str],
        environment: Mapping[str, str],
        folder: str,
        ears: Ears,
        *,
        preloads: bool,
        pm2: str = "no",
    ) -> "Process":
        """EngineError where it cannot be started. `preloads`: a Node notices its library. `pm2`: as
        in its [[program]]."""
        adopt_orphans()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        printed, out = os.pipe()
        notices = Notices()
        number = theirs.fileno()
        own = {**environment, "NOTIFY_SOCKET": notices.address, SOCKET: str(number)}
        if preloads:
            preload_into(own, number, str(Path(f"/proc/self/fd/{number}").readlink()))
        like_pm2 = LikePm2() if pm2 != "no" else None
        if like_pm2:
            own |= like_pm2.environment
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=like_pm2.input if like_pm2 else asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(number, like_pm2.number) if like_pm2 else (number,),
                env=own,
                cwd=folder,
                process_group=0,
                preexec_fn=client.die_with_worker,
            )
        except (OSError, ValueError) as error:
            ours.close()
            os.close(printed)
            notices.close()
            if like_pm2:
                like_pm2.close()
            cause = error.strerror if isinstance(error, OSError) else str(error)
            if not Path(folder).is_dir():
                cause = f"the folder that it runs in, {folder}, is not there"
            raise EngineError(f"cannot start {command[0]}: {cause}", code=MISSING) from error
        finally:
            os.close(out)
            theirs.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=client.LONGEST_LINE)
        run = cls(process, client.Conversation(writer, ears.event), notices)
        if like_pm2:
            like_pm2.begin()
            run._like_pm2, run._by_message = like_pm2, pm2 == "message"

        def take(notice: dict[str, str]) -> None:
            if "WATCHDOG" in notice:
                run.pinged = time.monotonic()
            ears.notice(notice)

        notices.hear(take)
        reading = ears.tasks.start(run._print(printed, ears.output), "output")
        speech = ears.tasks.start(run._hear(reader), "speech")
        watching = ears.tasks.start(run._watch(reading, ears.end), "program")
        run._tasks = [reading, speech, watching]
        return run

    @property
    def runs(self) -> bool:
        return self._process.returncode is None

    async def stop(self, within: float, progress: Callable[[], None] = lambda: None) -> bool:
        """Ask for its end, first by its own words, then by SIGTERM or as pm2 does, and then kill
        it. False: it had to be killed."""
        self._expected = ended = True
        if self.speech.alive and self.speech.ready.done():
            with suppress(EngineError):
                await self._while_waiting(self.speech.call("stop", within), progress)
        if self.runs:
            self._ask_to_end()
            try:
                async with asyncio.timeout(within):
                    await self._while_waiting(self._process.wait(), progress)
            except TimeoutError:
                ended = False
        await self.kill()
        return ended

    async def kill(self) -> None:
        self._expected = True
        await asyncio.to_thread(kill_all, self.pid)
        if self.runs:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await asyncio.wait(self._tasks, timeout=OUTPUT_AFTER)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._close()

    def end_with(self, why: str) -> None:
        """Kill the program and let `on_end` say why."""
        self._why = self._why or why
        with suppress(ProcessLookupError):
            self._process.kill()

    def _ask_to_end(self) -> None:
        if self._like_pm2 is not None and self._by_message:
            self._like_pm2.ask_to_end()
            return
        number = signal.SIGINT if self._like_pm2 is not None else signal.SIGTERM
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _while_waiting(self, work: Awaitable[object], progress: Callable[[], None]) -> None:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=1.0)
                progress()
        finally:
            if not task.done():
                task.cancel()
        task.result()

    async def _print(self, printed: int, output: Output) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(printed, "rb", 0)
        )
        try:
            while content := await reader.read(_CHUNK):
                output.feed(content)
        finally:
            transport.close()
            output.close()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        why = await self.speech.read(reader)
        if why and not self._expected:
            self.end_with(why)
        self.speech.end(why or "it closed its end")

    async def _watch(self, reading: "asyncio.Task[None]", on_end: Callable[[str], None]) -> None:
        status = await self._process.wait()
        self.speech.end("it ended")
        if self._expected:
            return
        await asyncio.to_thread(kill_all, self.pid)
        # The program's last lines may be on their way still.
        await asyncio.wait({reading}, timeout=OUTPUT_AFTER)
        reading.cancel()
        self._close()
        on_end(self._why or client.how_ended(status))

    def _close(self) -> None:
        self.speech.end("it ended")
        with suppress(OSError, ValueError):
            self.notices.close()
        if self._like_pm2 is not None:
            self._like_pm2.close()
