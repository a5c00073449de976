"""What another program on the machine does to the agent's files and processes, by chance."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.daemon.conftest import RunningAgent

Step = dict[str, Any]
SESSIONS = ("desk", "shop", "wa")
ACTS = ("replace", "replace", "clean", "signal", "signal", "away", "limit", "twin")
KINDS = ("gone", "gone", "gone", "file", "folder", "pipe", "link")
"""What stands where a file of `run/`, the API's socket or the lock was."""
FOLDERS = ("", "run", "sessions", *(f"sessions/{id}" for id in SESSIONS), "sessions/shop/session")
"""Below the state folder."""
HARMLESS = ("SIGHUP", "SIGWINCH", "SIGCHLD", "SIGCONT", "SIGURG")
SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGQUIT", "SIGIO", "SIGTERM", "SIGKILL")
PAUSES = ("SIGSTOP", "SIGTSTP", "SIGTTIN")


def draw(chance: Random) -> list[Step]:
    return [_step(chance) for _ in range(chance.randint(3, 6))]


def _step(chance: Random) -> Step:
    match chance.choice(
        ["replace", "replace", "clean", "signal", "signal", "away", "limit", "twin"]
    ):
        case "replace":
            return {"do": "replace", "at": chance.random(), "kind": chance.choice(KINDS)}
        case "signal":
            number = chance.choice(HARMLESS + SIGNALS + PAUSES)
            who = chance.choice(["agent", "worker", "node", "node"])
            seconds = chance.choice([0.1, 1.0, 4.0])
            id = "wa" if who == "node" else chance.choice(SESSIONS)
            return {"do": "signal", "signal": number, "who": who, "id": id, "seconds": seconds}
        case "away":
            seconds = chance.choice([0.1, 1.0, 5.0])
            return {"do": "away", "folder": chance.choice(FOLDERS), "seconds": seconds}
        case "limit":
            return {"do": "limit", "left": chance.choice([0, 1, 3, 8]), "seconds": 4.0}
        case other:
            return {"do": other}


async def do(agent: RunningAgent, step: Step) -> None:
    match step["do"]:
        case "replace":
            _replace(agent.state, step)
        case "clean":
            for path in _files(agent.state / "run"):
                path.unlink(missing_ok=True)
        case "signal":
            await _signal(agent, step)
        case "away":
            await _away(agent.state / step["folder"], agent.state.parent / "away", step["seconds"])
        case "limit":
            await _limit(agent, step)
        case "twin":
            await _start_twin(agent)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _replace(state: Path, step: Step) -> None:
    known = [*_files(state / "run"), state / "api.sock", state / "lock"]
    path = known[int(step["at"] * len(known))]
    with suppress(FileNotFoundError):
        path.rename(state.parent / "was")  # its own program may still have it open
    match step["kind"]:
        case "file":
            path.write_bytes(b"of another program")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(state.parent / "nothing")


def clear(state: Path) -> None:
    """As the operator does: what does not belong there goes, and what is missing is not made."""
    for path in (*(state / "run").rglob("*"), state / "api.sock", state / "lock"):
        if path.is_symlink() or path.is_fifo() or _is_of_another_program(path):
            path.unlink()
        elif path.is_dir() and (path.suffix or path.name in ("notify", "lock")):
            path.rmdir()


def _is_of_another_program(path: Path) -> bool:
    return path.is_file() and path.read_bytes() == b"of another program"


async def _signal(agent: RunningAgent, step: Step) -> None:
    number = getattr(signal, step["signal"])
    for pid in await _pids(agent, step["who"], step["id"]):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            if step["signal"] in PAUSES:
                await asyncio.sleep(step["seconds"])
                os.kill(pid, signal.SIGCONT)


async def _pids(agent: RunningAgent, who: str, id: str) -> list[int]:
    assert agent.process is not None
    if who == "agent":
        return [agent.process.pid]
    with suppress(OSError):
        pid = await agent.pid(id)
        return [pid] if pid and who == "worker" else nodes_of(pid)
    return []


def nodes_of(pid: int) -> list[int]:
    """The Node processes of this worker."""
    try:
        below = psutil.Process(pid).children(recursive=True) if pid else []
        return [each.pid for each in below if "node" in each.name()]
    except psutil.NoSuchProcess:
        return []


async def _away(path: Path, aside: Path, seconds: float) -> None:
    path.rename(aside)
    try:
        await asyncio.sleep(seconds)
    finally:
        if path.exists():  # made again meanwhile: it stays beside, as an operator would see it
            path.rename(path.with_name(f"{path.name}.new-{os.urandom(3).hex()}"))
        aside.rename(path)


async def _limit(agent: RunningAgent, step: Step) -> None:
    """No more descriptors than it has, and some."""
    assert agent.process is not None
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(agent.process.pid)
        before = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + step["left"], before[1]))
        await asyncio.sleep(step["seconds"])
        process.rlimit(psutil.RLIMIT_NOFILE, before)


async def _start_twin(agent: RunningAgent) -> None:
    """A second agent on the same state folder, by mistake: it must not begin."""
    twin = RunningAgent(agent.state, agent.config)
    twin.log = type(agent.log)(agent.state.parent / "twin.log")
    await twin.start(ready=False)
    assert twin.process is not None
    try:
        async with asyncio.timeout(30):
            code = await twin.process.wait()
    finally:
        with suppress(ProcessLookupError):
            twin.process.kill()
    assert code, "a second agent ended as if all were well"
