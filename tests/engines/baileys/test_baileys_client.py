"""The client's process: it hangs, ends, floods its pipe, sends garbage, and is cured each time."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from agent.core.reasons import reason_of
from agent.core.words import ConnectionStatus
from agent.engines import base
from agent.engines.baileys.client import Client
from agent.engines.baileys.fetch import main as fetch
from agent.engines.baileys.node import find_node, find_packages
from agent.errors import ConfigError, EngineError
from tests.conftest import Eventually
from tests.engines.baileys.conftest import Bench
from tests.waiting import alive

pytestmark = pytest.mark.slow


async def test_a_client_that_hangs_is_killed_by_a_probe_and_the_next_connect_starts_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "probe_limit", lambda: 0.5)
    await bench.come_paired()
    first = bench.engine._life.client
    assert isinstance(first, Client)
    first.hangs_after = 2.5
    os.kill(first.pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match="did not answer within"):
        await bench.engine.probe()
    assert first.alive, "one late answer is no loop that stands still"
    while first.alive:
        with pytest.raises(EngineError, match="did not answer within"):
            await bench.engine.probe()
    assert bench.heard.last.reason == "client_crashed"
    assert "did not answer" in bench.heard.last.raw
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
    await bench.come_back()
    await bench.talk("cured")


async def test_a_client_that_ends_too_often_is_left_to_the_agent(bench: Bench) -> None:
    await bench.start(client_starts=1)
    await bench.is_now("QR_REQUIRED")
    for _ in range(2):
        client = bench.engine._life.client
        assert client is not None
        os.kill(client.pid, signal.SIGKILL)
        await bench.is_now("DISCONNECTED", "client_crashed")
        await bench.engine.connect()
        if bench.engine._life.client is None:
            break
        await bench.is_now("QR_REQUIRED")
    assert bench.heard.last.status is ConnectionStatus.DISCONNECTED
    assert reason_of(bench.heard.last.reason).fresh_worker
    assert "times in ten minutes" in bench.heard.last.raw


def program(tmp_path: Path, body: str) -> Path:
    """Plays Node: gets the numbers of its pipes as arguments, as the client does."""
    path = tmp_path / "node"
    path.write_text(
        f"#!{sys.executable}\nimport json, os, sys, time\n"
        "commands, events = int(sys.argv[-3]), int(sys.argv[-2])\n"
        "def tell(line): os.write(events, line if isinstance(line, bytes) else"
        " json.dumps(line).encode() + b'\\n')\n"
        f"{body}\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("tell({'event': 'ready'})\nos._exit(3)", "it ended with status 3"),
        ("tell({'event': 'ready'})\nos.kill(os.getpid(), 9)", "it was ended by SIGKILL"),
        (
            "tell({'event': 'ready'})\nfor _ in range(9): tell(b'garbage\\n')\ntime.sleep(60)",
            "it sent 3 lines that are no JSON objects",
        ),
        (
            "tell({'event': 'ready'})\nfor _ in range(40): tell(b'x' * 65536)\ntime.sleep(60)",
            "it sent a line of more than 1048576 bytes",
        ),
        (
            "tell({'event': 'ready'})\nwhile True: tell(b'{}\\n' * 1000)",
            "it sent more than 50000 lines within 10 s",
        ),
    ],
    ids=["ends", "is killed", "garbage", "an endless line", "a flood"],
)
async def test_every_kind_of_failure_has_its_own_error(
    tmp_path: Path, eventually: Eventually, body: str, why: str
) -> None:
    ended: list[str] = []
    client = await Client.start(program(tmp_path, body), tmp_path, lambda _: None, ended.append)
    await eventually(lambda: ended == [why])
    assert not client.alive
    with pytest.raises(EngineError, match="the client ended"):
        await client.call("look", 1.0)
    await client.kill()


async def test_the_client_ends_with_its_worker_also_when_it_hangs(
    tmp_path: Path, eventually: Eventually
) -> None:
    """The worker is killed: the kernel ends a client whose loop would never see its pipe close."""
    node = program(tmp_path, "tell({'event': 'ready'})\nwhile True: time.sleep(60)")
    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from agent.engines.baileys.client import Client\n"
        "async def main():\n"
        f"    client = await Client.start(Path({str(node)!r}), Path({str(tmp_path)!r}),"
        " lambda _: None, print)\n"
        "    print(client.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    pid = int(await worker.stdout.readline())
    worker.kill()
    await worker.wait()
    await eventually(lambda: alive(pid), False)


def test_a_node_that_is_too_old_or_missing_is_named(tmp_path: Path) -> None:
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v18.19.0\n")
    old.chmod(0o755)
    with pytest.raises(ConfigError, match=r"without Node 20 or newer: .*/node is version 18"):
        find_node({"PATH": str(tmp_path)} | {"WA_NODE": str(old)})


def test_missing_packages_name_the_command_that_brings_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"python\S* -m agent.engines.baileys.fetch"):
        find_packages(tmp_path)
    empty = tmp_path / "npm-cache"
    empty.mkdir()
    assert fetch([str(tmp_path), str(empty)]) == 1
    assert "cannot fetch the packages of the baileys engine" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        find_packages(tmp_path)


async def test_no_signal_opens_a_debugger_that_others_could_read_keys_with(bench: Bench) -> None:
    """SIGUSR1 makes a Node listen for anybody on the machine."""
    await bench.come_paired()
    client = bench.engine._life.client
    assert isinstance(client, Client)
    process = psutil.Process(client.pid)
    told = await bench.until(process.net_connections)
    os.kill(client.pid, signal.SIGUSR1)
    await bench.talk("after it")
    # The debugger's thread says so before it listens, and the talk came after it.
    listening = [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
    assert told and not listening
    assert client.alive
