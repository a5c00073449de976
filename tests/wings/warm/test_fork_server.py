"""Workers forked from one warm process: real forks, real links, real ends."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.clock import boot_now
from agent.core.model import ConnectionStatus, InstanceId
from agent.wings.warm.process import WarmProcess


class Warm:
    """The agent's end of a warm process."""

    def __init__(self) -> None:
        self.sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(60)
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "WA_WARM_FD": str(other.fileno()),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.worker", "--warm"],
            env=env,
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
        )
        other.close()
        self.children: list[int] = []

    async def told(self) -> dict[str, Any]:
        found = dict(json.loads(await asyncio.to_thread(self.sock.recv, 65536)))
        if "exited" in found:
            self.children.remove(found["pid"])  # it is reaped: another process may get its number
        return found

    async def fork(
        self, id: str, env: dict[str, str], err: int = -1, **more: Any
    ) -> dict[str, Any]:
        null = os.open(os.devnull, os.O_WRONLY)
        packet = json.dumps({"fork": id, "env": env, **more}).encode()
        socket.send_fds(self.sock, [packet], [null, null if err < 0 else err])
        os.close(null)
        answer = await self.told()
        if "pid" in answer:
            self.children.append(answer["pid"])
        return answer

    def close(self) -> None:
        self.sock.close()
        for pid in self.children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(60)


class Child:
    """What a Bench needs to know of a worker that is not its own child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


@pytest.fixture
async def warm() -> AsyncIterator[Warm]:
    warm = Warm()
    yield warm
    warm.close()


async def test_a_forked_worker_is_a_worker_like_any_other(bench: Any, warm: Warm) -> None:
    bench.identity(settings={"scan_after": 0.0})
    read, write = os.pipe()
    env = bench.environment(watchdog=1.0)
    answer = await warm.fork("sales", env, write)
    os.close(write)
    pid = answer["pid"]
    assert answer == {"forked": "sales", "pid": pid}
    bench.process = Child(pid)
    link = await bench.linked()
    assert (link.hello.pid, link.hello.run) == (pid, "run1")
    await bench.until(lambda: any("CONNECTED" in notice for notice in bench.notices))
    await bench.until(lambda: any("WATCHDOG=1" in notice for notice in bench.notices))
    assert os.getsid(pid) == pid

    held = {each.name: str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert held["0"] == held["1"] == os.devnull and held["2"].startswith("pipe:")
    theirs = Path(f"/proc/{warm.process.pid}/fd/{_fd_of(warm)}").readlink()
    assert str(theirs) not in held.values(), "the child holds nothing of the warm process"

    os.kill(pid, signal.SIGTERM)
    assert await warm.told() == {"exited": "sales", "pid": pid, "code": 0, "signal": None}
    with os.fdopen(read, "rb") as lines:
        assert b"[sales] closed in order" in lines.read()


def _fd_of(warm: Warm) -> str:
    environ = Path(f"/proc/{warm.process.pid}/environ").read_bytes().split(b"\0")
    return next(each for each in environ if each.startswith(b"WA_WARM_FD")).decode().split("=")[1]


async def test_exit_statuses_and_signals_of_children_are_reported(bench: Any, warm: Warm) -> None:
    answer = await warm.fork("nobody", bench.environment())
    assert await warm.told() == {
        "exited": "nobody",
        "pid": answer["pid"],
        "code": 66,
        "signal": None,
    }

    bench.identity()
    answer = await warm.fork("sales", bench.environment())
    await bench.until(lambda: any("READY=1" in notice for notice in bench.notices))
    os.kill(answer["pid"], signal.SIGABRT)
    assert await warm.told() == {
        "exited": "sales",
        "pid": answer["pid"],
        "code": None,
        "signal": signal.SIGABRT,
    }


@pytest.mark.parametrize(
    ("packet", "files"),
    [
        pytest.param(b"{", 2, id="not json"),
        pytest.param(b'{"fork": "a", "env": 3}', 2, id="no environment"),
        pytest.param(b'{"fork": "a", "env": {}}', 0, id="no files"),
        pytest.param(b'{"fork": "a", "env": {}}', 5, id="too many files"),
        pytest.param(b"[" * 100_000, 2, id="depth bomb"),
        pytest.param(b"x" * 150_000, 2, id="long"),
    ],
)
async def test_a_worker_that_cannot_be_forked_is_an_answer_and_does_no_harm(
    bench: Any, warm: Warm, packet: bytes, files: int
) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if files:
        socket.send_fds(warm.sock, [packet], [null] * files)
    else:
        warm.sock.send(packet)
    os.close(null)
    assert "error" in await warm.told()
    bench.identity()
    assert "pid" in await warm.fork("sales", bench.environment())


async def test_children_outlive_the_warm_process_which_ends_with_its_agent(
    bench: Any, warm: Warm
) -> None:
    bench.identity(settings={"scan_after": 0.0})
    answer = await warm.fork("sales", bench.environment())
    bench.process = Child(answer["pid"])
    link = await bench.linked()
    await bench.status(ConnectionStatus.CONNECTED)
    warm.process.send_signal(signal.SIGINT)  # the terminal's Ctrl+C goes to everybody
    assert warm.process.poll() is None
    warm.sock.close()
    assert await asyncio.to_thread(warm.process.wait, 60) == 0
    assert (await link.call("probe"))["claim"]["status"] == "CONNECTED"
    assert await link.call("close") == {}


async def test_a_worker_whose_start_was_broken_off_does_not_outlive_its_agent(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = f"{os.getpid()}-{boot_now()}"
    monkeypatch.setenv("WA_TESTS_BROKEN_OFF", mark)
    bench.identity(settings={"scan_after": 0.0})
    warm = WarmProcess(tmp_path / "warm.log", lambda _pid, _how: None, lambda _pid: None)
    out = os.open(os.devnull, os.O_WRONLY)
    asked = warm.fork(InstanceId("sales"), bench.environment(), out)
    begun = asyncio.create_task(asked)
    await bench.until(lambda: warm.pid)
    begun.cancel()
    await asyncio.gather(begun, return_exceptions=True)
    os.close(out)
    # As an agent that is killed: nothing reads what the warm process answers.
    assert warm._sock is not None
    asyncio.get_running_loop().remove_reader(warm._sock.fileno())
    warm._sock.close()

    def lives() -> list[int]:
        return [it.pid for it in psutil.process_iter() if _marked(it, mark)]

    await bench.until(lambda: not lives(), within=30)


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("WA_TESTS_BROKEN_OFF") == mark and process.pid != os.getpid()
    except psutil.Error:
        return False
