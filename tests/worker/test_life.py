"""One worker from its start to its end, and its next run."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import ConnectionStatus as Status
from tests.lacking import not_lent


async def test_a_new_instance_shows_a_code_is_scanned_and_is_connected(bench: Any) -> None:
    bench.start(settings={"scan": "manual"})
    link = await bench.linked()
    assert (link.hello.id, link.hello.run, link.hello.engine) == ("sales", "run1", "sandbox")
    await bench.status(Status.QR_REQUIRED)
    qr = (await link.call("qr"))["qr"]
    assert qr["text"].startswith("2@") and qr["text"].count(",") == 3 and qr["number"] == 1
    assert 15 < qr["expires_in"] <= 20
    await link.call("command", {"name": "scan", "arguments": {}})
    claim = await bench.status(Status.CONNECTED)
    assert claim.paired and claim.account.startswith("5511")
    assert claim.proof_age is not None and claim.proof_age < 5
    seen = [each.status for each in bench.claims]
    assert seen.index(Status.QR_REQUIRED) < seen.index(Status.LOADING)
    assert (await link.call("qr"))["qr"] is None
    bench.process.terminate()
    assert await bench.ended() == 0
    errors = bench.errors()
    assert qr["text"] not in errors
    assert "] [INFO] [SESSION] [sales] closed in order" in errors


async def test_sigterm_saves_and_the_next_run_restores_without_a_code(bench: Any) -> None:
    await bench.connected()
    (bench.session / "sandbox.json").unlink()
    bench.process.terminate()
    assert await bench.ended() == 0
    assert (bench.session / "sandbox.json").exists()
    assert any(notice.startswith("STOPPING=1") for notice in bench.notices)
    assert not (bench.runtime / "link.sock").exists()

    await bench.connected(settings={"scan": "manual"})
    assert Status.QR_REQUIRED not in [each.status for each in bench.claims]
    assert bench.link.hello.run == "run2"


async def test_f19_a_second_worker_on_the_same_session_refuses(bench: Any) -> None:
    await bench.connected()
    first = bench.process
    second = bench.start()
    assert await bench.ended() == 75
    assert "another worker holds this session" in bench.errors()
    # A copy has taken the folder's place.
    shutil.copytree(bench.folder.rename(bench.root / "aside"), bench.folder)
    bench.start()
    assert await bench.ended() == 75
    assert first.poll() is None and second.pid != first.pid
    assert (await bench.link.call("probe"))["claim"]["status"] == "CONNECTED"


@pytest.mark.parametrize(
    ("text", "why", "exit"),
    [
        ('{"version": 2, "id": "sales", "engine": "sandbox"}', "version", 66),
        ('{"version": 1, "id": "sales", "engine": "x", "enabled": true}', "unknown", 78),
        (
            '{"version":1,"id":"sales","engine":"sandbox","enabled":true,"settings":{"scan":3}}',
            "scan",
            78,
        ),
    ],
    ids=["newer", "unknown engine", "bad setting"],
)
async def test_a_bad_identity_is_named(bench: Any, text: str, why: str, exit: int) -> None:
    (bench.folder / "instance.json").write_text(text)
    bench.start(identity=False)
    assert await bench.ended() == exit
    errors = bench.errors()
    assert why in errors and "Traceback" not in errors


@pytest.mark.parametrize("id", ["../sales", "nobody"])
async def test_a_bad_id_is_named(bench: Any, id: str) -> None:
    bench.start(argument=id)
    assert await bench.ended() == (66 if id == "nobody" else 78)
    errors = bench.errors()
    assert "cannot" in errors and len(errors.splitlines()) == 1


async def test_f80_symlinks_are_not_followed(bench: Any, tmp_path: Path) -> None:
    bench.identity()
    elsewhere = tmp_path / "elsewhere.json"
    (bench.folder / "instance.json").rename(elsewhere)
    (bench.folder / "instance.json").symlink_to(elsewhere)
    bench.start(identity=False)
    assert await bench.ended() == 66
    (bench.root / "linked").symlink_to(bench.folder)
    bench.start(argument="linked", identity=False)
    assert await bench.ended() == 66


async def test_a_folder_of_another_group_is_refused_where_the_unit_wants_its_own(
    bench: Any,
) -> None:
    if os.geteuid():
        not_lent("only root can give a folder to another group")
    os.chown(bench.folder, -1, os.getegid() + 4711)
    bench.start(env={"WA_OWN_GROUP_ONLY": "yes"})
    assert await bench.ended() == 66
    assert "belongs to group" in bench.errors()
    assert not (bench.folder / "lock").exists()
    os.chown(bench.folder, -1, os.getegid())
    bench.start(env={"WA_OWN_GROUP_ONLY": "yes"})
    await bench.linked()


async def test_paths_longer_than_a_socket_name_work(make_bench: Any, tmp_path: Path) -> None:
    root = tmp_path / ("d" * 100) / ("e" * 100)
    root.mkdir(parents=True)
    bench = make_bench(root)
    assert len(str(bench.runtime / "link.sock")) > 200
    await bench.connected(watchdog=1.0)
    await bench.until(lambda: any("WATCHDOG=1" in each for each in bench.notices))


async def test_a_worker_that_loses_the_agent_keeps_its_session_and_what_happened(
    bench: Any,
) -> None:
    await (await bench.connected(settings={"messages_per_minute": 600})).close()
    bench.happened.clear()
    await asyncio.sleep(0.5)  # the agent is away for a while
    again = await bench.linked()
    await bench.until(lambda: len(bench.happened) >= 4)
    assert again.hello.run == "run1"
    assert {each.status for each in bench.claims} == {Status.CONNECTED}
    assert bench.closed == []


def test_the_worker_carries_none_of_the_agents_libraries() -> None:
    code = (
        "import sys; from agent.worker.__main__ import import_asyncio_in_small as lean; lean()\n"
        "import asyncio\nasync def f(): asyncio.get_running_loop().add_signal_handler(2, id)\n"
        "asyncio.run(f()); import agent.worker.run, agent.engines.sandbox.engine\n"
        "from agent.engines.web import engine; from agent.engines.baileys import engine\n"
        "from agent.engines.program import engine; import agent.engines.sandbox.rules\n"
        "print(' '.join(sys.modules))\n"
        "import agent.messages.intake\n"
        "print(' '.join(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code], env=env, capture_output=True, check=True
    )
    found, keeping = (set(line.split()) for line in answer.stdout.decode().splitlines())
    unwanted = {"aiohttp", "sqlite3", "ssl", "hashlib", "email", "http", "inspect", "psutil"}
    assert found & (unwanted | {"dbus_fast", "prometheus_client", "random", "tempfile"}) == set()
    assert keeping & unwanted == {"sqlite3"}, "only where messages are kept"
    assert not [name for name in keeping if name.startswith(("agent.config", "agent.store"))]


async def test_a_pairing_that_cannot_be_written_is_no_pairing(bench: Any) -> None:
    bench.start(settings={"scan": "manual"})
    link = await bench.linked()
    await bench.status(Status.QR_REQUIRED)
    away = bench.session.rename(bench.session.with_name("away"))
    await link.call("command", {"name": "scan", "arguments": {}})
    claim = await bench.status(Status.DISCONNECTED, "unknown")
    assert not claim.paired and "cannot save" in claim.raw
    away.rename(bench.session)
    await link.call("connect")
    await bench.status(Status.QR_REQUIRED)
