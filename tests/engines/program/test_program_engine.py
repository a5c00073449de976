"""A user's own bot as a session: what it tells, how it ends, what it gets."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.engines.program import process
from agent.engines.program.declaration import RESERVED
from agent.engines.program.process import Ears, Process
from agent.engines.program.state import Output
from agent.engines.tasks import Tasks
from agent.errors import WaError
from tests.engines.program.conftest import ProgramBench
from tests.waiting import alive


async def test_a_bot_that_tells_is_shown_as_it_says(bench: ProgramBench) -> None:
    bench.run("tell")
    link = await bench.linked()
    await bench.is_now("INITIALIZING")
    await bench.tell("qr", qr="1@code", expires=30)
    await bench.is_now("QR_REQUIRED")
    code = (await link.call("qr"))["qr"]
    assert (code["text"], code["number"], code["expires_in"] <= 30) == ("1@code", 1, True)
    await bench.tell("open", account="5511900000001", version="7.0.0")
    claim = await bench.is_now("CONNECTED")
    assert (claim.paired, claim.account, claim.version) == (True, "5511900000001", "7.0.0")
    # A label of metrics: no program writes what it likes there.
    await bench.tell("open", account="5511900000001", version='7" secret=hunter2')
    await bench.until(lambda: bench.claims[-1].version == "")
    await bench.tell("message", direction="in", type="text", id="A", peer="551@s.whatsapp.net")
    await bench.until(lambda: any(its.kind == "message" for its in bench.happened))
    detail = (await link.call("probe"))["detail"]
    assert (detail["program"], detail["tells"], detail["open"]) == (True, True, True)
    note = json.loads((bench.session / "program.json").read_text())
    assert note == {"version": 1, "account": "5511900000001", "elsewhere": True}


async def test_a_bot_that_fails_at_each_start_ends_in_one_reason_with_its_last_lines(
    bench: ProgramBench,
) -> None:
    bench.run("fails", starts=3)
    link = await bench.linked()
    for _ in range(2):
        claim = await bench.is_now("DISCONNECTED", "program_ended")
        assert claim.raw.startswith("it ended with status 3; it printed last: Error: Cannot find")
        bench.claims.clear()
        await link.call("connect")
    claim = await bench.is_now("DISCONNECTED", "program_failing")
    assert claim.raw.startswith("3 times in ten minutes; it ended with status 3; it printed last:")
    assert "hunter2" not in claim.raw
    bench.claims.clear()
    await link.call("connect")
    await bench.until(lambda: bench.claims)
    assert {claim.reason for claim in bench.claims} == {"program_failing"}  # a try hides it not
    assert await bench.stop() == 0
    log = bench.errors()
    assert "Cannot find module 'left-pad'" in log and "hunter2" not in log


async def test_a_stop_asks_the_library_first_then_the_program(bench: ProgramBench) -> None:
    bench.run("tell")
    await bench.linked()
    await bench.tell("open", account="1")
    await bench.is_now("CONNECTED")
    assert await bench.stop() == 0
    assert (bench.session / "stopped").exists()
    assert "killed" not in bench.errors()


async def test_nothing_of_a_bot_is_left_whatever_it_does_to_hide(bench: ProgramBench) -> None:
    bench.run("strays", stop=0.2)
    await bench.linked()
    await bench.is_now("INITIALIZING", "not_told")
    pids = [int(pid) for pid in (await bench.file("pids", lambda told: " " in told)).split()]
    await bench.until((bench.folder / "runs").exists)
    assert await bench.stop() == 0
    assert [pid for pid in pids if alive(pid)] == []
    assert runs_of(bench.session) == []


def runs_of(session: Path) -> list[int]:
    """Processes with this session in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"WA_SESSION={session}".encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
    return found


async def test_a_bot_ends_with_a_worker_that_is_killed(bench: ProgramBench) -> None:
    bench.run("quiet")
    link = await bench.linked()
    await bench.is_now("INITIALIZING", "not_told")
    pid = (await link.call("probe"))["detail"]["pid"]
    assert bench.process is not None
    bench.process.send_signal(signal.SIGKILL)
    await bench.until(lambda: not alive(pid))


async def test_a_hung_bot_is_ended_and_started_again(bench: ProgramBench) -> None:
    bench.run("tell")
    link = await bench.linked()
    await bench.tell("open", account="1")
    await bench.is_now("CONNECTED")
    await bench.order("hang")

    while bench.claims[-1].reason != "program_ended":
        with suppress(WaError):
            await link.call("probe", {"deep": True})
    assert "its loop did not answer within" in bench.claims[-1].raw
    (bench.folder / "orders").unlink()
    await link.call("connect")
    await bench.is_now("INITIALIZING")


async def test_a_bot_gets_its_own_environment_and_one_open_file(bench: ProgramBench) -> None:
    file = bench.root / "env"
    file.write_text("# of the shop\nexport TOKEN='a secret'\n\nSHOP=1\n")
    secrets = {"WA_AGENT_KEY": "wak_1", "WA_DATABASE_PASSWORD": "hidden", "AWS_SECRET": "x"}
    row = {"environment": ["PORT=3000", "WA_NUMBER=49151"], "environment_file": str(file)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        bench.run("shows", library="none", **row)
    await bench.linked()
    shown = json.loads(await bench.file("shown", lambda text: text.endswith("}")))
    given = shown["environment"]
    assert (given["WA_INSTANCE"], given["WA_SESSION"]) == ("shop", str(bench.session))
    assert (given["PORT"], given["TOKEN"], given["SHOP"]) == ("3000", "a secret", "1")
    assert shown["folder"] == str(bench.session)
    ours = {"WA_INSTANCE", "WA_SESSION", "WA_PROGRAM_FD"}
    assert {name for name in given if name.startswith("WA_")} == {*ours, "WA_NUMBER"}
    assert ours <= RESERVED
    assert given["NOTIFY_SOCKET"].startswith("@wa-program-")
    assert not {*secrets, "WATCHDOG_USEC", "RUNTIME_DIRECTORY"} & given.keys()
    # And the listing itself.
    assert len(shown["files"]) == 5 and given["WA_PROGRAM_FD"] in shown["files"]


async def test_a_name_that_agent_toml_does_not_have_runs_nothing(bench: ProgramBench) -> None:
    # A command in a session's own settings is never run.
    settings = {"program": "bot", "[declared]": {"name": "bot", "command": ["touch", "ran"]}}
    bench.identity(engine="program", settings=settings)
    bench.start(identity=False)
    await bench.linked()
    claim = await bench.is_now("DISCONNECTED", "program_missing")
    assert "no [[program]] named bot" in claim.raw
    assert not (bench.session / "ran").exists()
    # One that is declared and cannot be started says why, in the same way.
    row = {"name": "bot", "command": ["/nowhere/bot"]}
    bench.identity(engine="program", settings={"program": "bot"}, of_rooms={"program": row})
    assert await bench.stop() == 0
    bench.start(identity=False)
    await bench.linked()
    claim = await bench.is_now("DISCONNECTED", "program_missing")
    assert claim.raw.startswith("cannot start /nowhere/bot: it is not there")


async def test_a_bot_whose_session_another_client_took_is_ended(bench: ProgramBench) -> None:
    """It would log in again by itself, and each would throw the other out for ever."""
    bench.run("tell")
    link = await bench.linked()
    await bench.tell("open", account="1")
    await bench.is_now("CONNECTED")
    pid = (await link.call("probe"))["detail"]["pid"]
    await bench.tell("close", code=440)
    await bench.is_now("DISCONNECTED", "conflict")
    await bench.until(lambda: not alive(pid))
    answer = await link.call("probe")
    assert (answer["claim"]["reason"], answer["detail"]) == ("conflict", {"program": False})


TELLS = """
import os, pathlib, socket, sys
address = os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"STATUS=listens", address)
pathlib.Path("told").touch()
"""


async def test_what_a_program_tells_during_its_start_is_heard_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A start ends with "it told nothing": words that were heard before would be forgotten."""
    connect, told = asyncio.open_connection, tmp_path / "told"
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def slowly(**of_socket: Any) -> Any:
        while not told.exists():  # noqa: ASYNC110  a file of another process
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        return await connect(**of_socket)

    monkeypatch.setattr(asyncio, "open_connection", slowly)
    for name in ("adopt_orphans", "kill_all"):  # this process has other children
        monkeypatch.setattr(process, name, lambda *_: None)
    output = Output(lambda _finding: None, ())
    ears = Ears(output, lambda _: None, heard.put_nowait, lambda _: None, Tasks(lambda _: None))
    run = await Process.start(
        [sys.executable, "-c", TELLS], dict(os.environ), str(tmp_path), ears, preloads=False
    )
    assert heard.empty()
    assert await heard.get() == {"STATUS": "listens"}
    await run.kill()
    await asyncio.sleep(0)
