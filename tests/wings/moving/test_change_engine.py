"""A session goes from one engine to another and back; its phone scans once."""

import argparse
import asyncio
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from agent.errors import Refused
from agent.vault.archives.unpack import unpack_apart
from agent.vault.archives.untar import Limits
from agent.wings.moving.change_engine import PROFILES, _from_program, _to_program
from agent.wings.moving.local_auth import export_local_auth
from tests.conftest import Eventually
from tests.daemon.conftest import PATIENT, RunningAgent, make_agent
from tests.daemon.test_vault import REPOSITORY, cli
from tests.engines.baileys.conftest import ACCOUNT
from tests.engines.program.conftest import BOT
from tests.standin.baileys.run import HERE, WhatsApp
from tests.wings.moving.conftest import keys_of, write_folder

__all__ = ["make_agent"]

PROGRAM = """
[[program]]
name = "shopbot"
command = ["{node}", "{bot}"]
environment = ["WHATSAPP={url}"]

[[program]]
name = "elsewhere"
command = ["{node}", "{bot}"]
folder = "/srv/shopbot"
"""
SLOWER = {"WA_AGENT_HEALTH__TIMEOUT": "5", "WA_AGENT_HEALTH__INTERVAL": "5"}


async def test_a_bots_session_goes_to_baileys_and_back_without_a_scan(
    make_agent: Callable[..., RunningAgent],
    whatsapp: WhatsApp,
    cache: Path,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bot = HERE / "bots" / "plain.mjs"
    agent = make_agent(PROGRAM.format(node=shutil.which("node"), bot=bot, url=whatsapp.socket))
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(PATIENT | SLOWER)
    body = {"id": "shop", "engine": "program", "settings": {"program": "shopbot"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED", within=60)
    status, said = await cli(agent, "change-engine", "shop", "--to", "baileys")
    assert (status, "not paired" in said) == (4, True), said
    code = await agent.do("GET", "/api/instance/shop/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    codes = await agent.codes("shop")

    words = ("change-engine", "shop", "--to", "baileys", "--wait", "90")
    # One that fails half-way leaves the session as it was.
    status, said = await cli(agent, *words, "--session", str(agent.state / "nowhere"))
    assert (status, "no such folder" in said) == (2, True), said
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    assert (await agent.show("shop"))["engine"] == "program"
    status, said = await cli(agent, *words, "--set", f"url={whatsapp.socket}")
    assert status == 0, said
    shown = await agent.show("shop")
    assert (shown["engine"], shown["account"]) == ("baileys", ACCOUNT)

    monkeypatch.setenv("WA_AGENT_CONFIG", str(agent.config))
    back = ("change-engine", "shop", "--to", "program")
    refused = {"": "--program", "elsewhere": "/srv/shopbot", "nobody": "no [[program]]"}
    for name, why in refused.items():
        status, said = await cli(agent, *back, *(("--program", name) if name else ()))
        assert (status in (2, 4), why in said) == (True, True), said
    assert await agent.status("shop") == "CONNECTED", "a refusal stops nothing"
    status, said = await cli(agent, *back, "--program", "shopbot", "--wait", "90")
    assert status == 0, said
    shown = await agent.show("shop")
    assert (shown["engine"], shown["settings"]) == ("program", {"program": "shopbot"})
    assert await agent.codes("shop") == codes
    assert (len(whatsapp.devices()), whatsapp.overlaps()) == (1, [])
    trash = [entry["name"] for entry in (await agent.do("GET", "/api/trash"))["trash"]]
    assert len(trash) == 2, "nothing is deleted"


HOLDS = """
[[program]]
name = "holds"
command = ["{python}", "{bot}", "holds"]
stop = 3.0
"""


@pytest.mark.parametrize("end", ["SIGTERM", "SIGHUP", "agent"])
async def test_a_change_that_is_broken_off_leaves_the_session_running(
    make_agent: Callable[..., RunningAgent], cache: Path, eventually: Eventually, end: str
) -> None:
    """The command is ended, its terminal is closed, the agent is killed: the bot goes on."""
    agent = make_agent(HOLDS.format(python=sys.executable, bot=BOT))
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(PATIENT | SLOWER)
    body = {"id": "shop", "engine": "program", "settings": {"program": "holds"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    socket = str(agent.state / "api.sock")
    words = ("change-engine", "shop", "--to", "baileys", "--socket", socket)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *words), cwd=REPOSITORY, stderr=asyncio.subprocess.PIPE
    )

    async def enabled() -> bool:
        return bool((await agent.show("shop"))["enabled"])

    await eventually(enabled, False, within=60)
    if end == "agent":
        await agent.kill()
        await agent.start(PATIENT | SLOWER)
    else:
        process.send_signal(signal.Signals[end])
    async with asyncio.timeout(90):
        _, said = await process.communicate()
    assert process.returncode not in (0, None), said
    await eventually(enabled, True, within=20)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    assert (await agent.show("shop"))["engine"] == "program"


async def test_an_engine_that_cannot_run_here_gets_no_session(
    make_agent: Callable[..., RunningAgent], eventually: Eventually
) -> None:
    """Before the bot is stopped: its packages are not in this agent's cache."""
    agent = make_agent(HOLDS.format(python=sys.executable, bot=BOT))
    await agent.start(PATIENT | SLOWER)
    body = {"id": "shop", "engine": "program", "settings": {"program": "holds"}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status("shop"), "CONNECTED", within=60)
    status, said = await cli(agent, "change-engine", "shop", "--to", "baileys")
    assert (status, "the engine baileys cannot run here: " in said) == (4, True), said
    assert "fetch" in said
    same = ("change-engine", "shop", "--to", "program", "--program", "holds")
    status, said = await cli(agent, *same)
    assert (status, "it has engine program already" in said) == (4, True), said
    shown = await agent.show("shop")
    assert (shown["enabled"], shown["connection_status"]) == (True, "CONNECTED")


def options(**more: str) -> argparse.Namespace:
    return argparse.Namespace(**{"id": "shop", "to": "baileys", "session": "", **more})


def test_a_session_elsewhere_or_of_another_account_is_not_guessed(tmp_path: Path) -> None:
    instance = {"id": "shop", "engine": "program", "account": ""}
    (copy := tmp_path / "copy").mkdir()
    with pytest.raises(Refused, match="elsewhere: name that folder with --session"):
        _from_program(options(), instance, copy, {})
    for name in ("one", "two"):
        write_folder(copy / name, keys_of())
    with pytest.raises(Refused, match="2 sessions lie in it"):
        _from_program(options(), instance, copy, {})
    with pytest.raises(Refused, match="it is of account 5511900000001"):
        _from_program(options(session=str(copy / "one")), {**instance, "account": "4930"}, copy, {})


def test_a_profile_goes_from_a_bot_to_the_browser_and_back(tmp_path: Path) -> None:
    (session := tmp_path / "web").mkdir()
    store = session / "profile/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"
    store.mkdir(parents=True)
    (store / "000003.log").write_bytes(b"pairing")
    web = {"id": "shop", "engine": "web", "account": "4930"}
    with _to_program(options(to="program"), web, session, {"program": "x"}) as archive:
        assert archive.read(2) == b"\x1f\x8b"
    (copy := tmp_path / "copy").mkdir()
    export_local_auth(session, copy / PROFILES)
    program = {**web, "engine": "program"}
    with _from_program(options(to="web"), program, copy, {}) as archive:
        assert archive.read(2) == b"\x1f\x8b"


@pytest.mark.parametrize("place", [".", "my auth/sub", "auth_info_baileys"])
def test_what_a_bot_keeps_beside_its_session_goes_along_and_comes_back(
    tmp_path: Path, place: str
) -> None:
    (copy := tmp_path / "copy").mkdir()
    write_folder(copy / place, keys_of())
    (copy / "program.json").write_text("{}")
    (copy / "orders.sqlite").write_text("orders")
    (copy / "media").mkdir()
    (copy / "media" / "photo.jpg").write_text("photo")
    before = content_of(copy)
    program = {"id": "shop", "engine": "program", "account": ACCOUNT}
    with _from_program(options(), program, copy, {}) as archive:
        there = unpacked(archive, tmp_path / "baileys")
    assert (there / "creds.json").exists() and not (there / "orders.sqlite").exists()
    with _to_program(options(to="program"), {**program, "engine": "baileys"}, there, {}) as archive:
        back = content_of(unpacked(archive, tmp_path / "back"))
    assert back.keys() == before.keys() - {"program.json"}
    assert back["orders.sqlite"] == b"orders"


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def unpacked(archive: IO[bytes], folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    unpack_apart(folder, archive, Limits())
    return folder
