"""What surrounds a session: its sandbox, its silence towards others, its memory, its neighbours."""

import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus
from agent.core.reasons import REASONS
from agent.engines.web.browser.arguments import find_browser
from agent.engines.web.profile.folder import Lock, read_lock
from agent.engines.web.profile.notes import read_note, write_note
from agent.errors import ConfigError
from agent.wings.moving.local_auth import export_local_auth, import_local_auth
from tests.engines.web.bench import Bench, renderers_below
from tests.lacking import lacks, not_lent
from tests.listener import listening
from tests.standin.web.stand_in import StandIn

Status = ConnectionStatus
NOBODY = 65534


@pytest.fixture
async def outside() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that notes where a browser wants to go, and lets no request through."""
    asked: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode("latin-1").strip())
        writer.close()

    async with listening(note) as port:
        yield f"http://127.0.0.1:{port}", asked


async def test_a_session_contacts_no_other_host(
    bench: Bench, stand_in: StandIn, outside: tuple[str, list[str]]
) -> None:
    proxy, asked = outside
    await bench.pair(stand_in, proxy=proxy)
    await bench.link.call(
        "send", {"message": {"to": "5511888888888", "text": "see http://x.example"}}
    )
    await bench.link.call("logout")
    await bench.claimed(Status.DISCONNECTED, "logout")
    assert asked == []


async def test_the_page_sees_a_person_s_browser(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    said = stand_in.heads[0]
    assert "Chrome/" in said and "Headless" not in said
    told = next(each for each in stand_in.page().received if each["do"] == "hello")
    assert told["webdriver"] is False
    assert "Headless" not in told["agent"]


@pytest.fixture
async def nobodys(cache: Path, browser: None, stand_in: StandIn) -> AsyncIterator[Bench]:
    """A bench whose worker runs as a user without rights."""
    if os.geteuid() != 0:
        not_lent("needs root to become another user")
    root = Path(tempfile.mkdtemp(prefix="wa-web-", dir="/tmp"))
    bench = Bench(root, cache, stand_in.url)
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (bench.runtime / "notify").chmod(0o666)
    yield bench
    await bench.clean_up()
    shutil.rmtree(root, ignore_errors=True)


async def test_an_unprivileged_worker_keeps_the_browser_in_its_sandbox(
    nobodys: Bench, stand_in: StandIn
) -> None:
    bench = nobodys
    await bench.start(user=NOBODY)
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.scan("5511999999999")
    await bench.claimed(Status.CONNECTED)
    renderers = renderers_below(await bench.browser())
    assert renderers
    for pid in renderers:
        assert "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
        assert Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
    await bench.kill_worker()


async def test_an_unprivileged_worker_saves_deleted_files_too(
    nobodys: Bench, stand_in: StandIn
) -> None:
    device = await nobodys.pair(stand_in, user=NOBODY)
    shutil.rmtree(nobodys.session, ignore_errors=True)
    assert await nobodys.stop() == 0
    await nobodys.start(user=NOBODY, paired=True)
    await nobodys.claimed(Status.CONNECTED)
    assert stand_in.page().device == device


async def test_a_machine_that_gives_the_browser_no_sandbox_is_misconfigured(
    nobodys: Bench,
) -> None:
    if platform.machine() != "x86_64":
        not_lent("the filter is written for x86-64")
    forbid = str(Path(__file__).with_name("without_namespaces.py"))
    await nobodys.start(user=NOBODY, before=(sys.executable, forbid))
    claim = await nobodys.claimed(Status.DISCONNECTED, "misconfigured")
    assert "No usable sandbox" in claim.raw


async def test_a_worker_is_small_without_its_browser(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    assert bench.process is not None
    text = Path(f"/proc/{bench.process.pid}/smaps_rollup").read_text()
    pss = int(next(row for row in text.splitlines() if row.startswith("Pss:")).split()[1])
    assert pss < 18 * 1024


async def test_the_page_that_connected_is_kept_and_can_be_pinned(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    await bench.until(lambda: read_note(bench.session).page == "2.3000.1040000000")
    page = bench.session / "pages" / "2.3000.1040000000.html"
    await bench.until(page.exists)
    await bench.stop()
    page.write_text(page.read_text().replace("A stand-in", "A pinned stand-in"))

    before = len([each for each in stand_in.requests if each.startswith("/?")])
    await bench.start(page="known_good")
    await bench.claimed(Status.CONNECTED)
    assert len([each for each in stand_in.requests if each.startswith("/?")]) == before
    await bench.stop()

    write_note(bench.session, read_note(bench.session))
    await bench.start(page="2.3000.1")
    claim = await bench.claimed(Status.DISCONNECTED, "misconfigured")
    assert "2.3000.1" in claim.raw


@pytest.mark.parametrize(
    ("env", "reason", "words"),
    [
        pytest.param({"WA_BROWSER": "/nonexistent/b"}, "browser_missing", "/b", id="no browser"),
        pytest.param({"PATH": "/nonexistent"}, "misconfigured", "setpriv", id="no setpriv"),
    ],
)
async def test_a_missing_program_has_its_own_reason(
    bench: Bench, env: dict[str, str], reason: str, words: str
) -> None:
    await bench.start(env=env)
    claim = await bench.claimed(Status.DISCONNECTED, reason)
    assert words in claim.raw


async def test_a_bundle_that_is_fetched_later_is_found_by_the_next_try(
    bench: Bench, tmp_path: Path
) -> None:
    empty = tmp_path / "empty-cache"
    empty.mkdir()
    await bench.start(env={"WA_CACHE_PATH": str(empty)})
    claim = await bench.claimed(Status.DISCONNECTED, "bundle_missing")
    assert str(empty) in claim.raw
    assert REASONS["bundle_missing"].endless, "tried until it is there"
    (empty / "wa-js").symlink_to(bench.cache / "wa-js")
    await bench.link.call("connect")
    await bench.claimed(Status.QR_REQUIRED)


async def test_a_note_of_the_session_names_no_secret(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    await bench.until((bench.session / "web.json").exists)
    told = json.loads((bench.session / "web.json").read_text())
    assert set(told) == {"version", "paired", "account", "page", "device"}


@pytest.mark.slow
async def test_eight_sessions_live_side_by_side(
    tmp_path: Path, cache: Path, browser: None, stand_in: StandIn
) -> None:
    benches = [Bench(tmp_path, cache, stand_in.url, f"i{number}") for number in range(8)]
    try:
        for number, bench in enumerate(benches):
            await bench.start()
            await bench.claimed(Status.QR_REQUIRED, within=60)
            stand_in.scan(f"55119999900{number}", bench.id)
        for number, bench in enumerate(benches):
            claim = await bench.claimed(Status.CONNECTED, within=60)
            assert claim.account == f"55119999900{number}"
        assert len(set(stand_in.devices.values())) == 8
        told = await asyncio.gather(
            *(
                bench.link.call("send", {"message": {"to": "5511888888888", "text": bench.id}})
                for bench in benches
            )
        )
        assert all(each["outcome"] == "sent" for each in told)
        await benches[0].kill_worker()
        for bench in benches[1:]:
            await bench.link.call("probe")
            assert bench.claims[-1].status is Status.CONNECTED
        for _ in range(2):
            # All browsers end at once, and none needs another scan.
            codes = await asyncio.gather(*(bench.stop(60) for bench in benches[1:]))
            assert set(codes) == {0}
            for bench in benches[1:]:
                await bench.start(paired=True)
            for bench in benches[1:]:
                await bench.claimed(Status.CONNECTED, within=60)
    finally:
        for bench in benches:
            await bench.clean_up()


@pytest.mark.slow
async def test_the_full_browser_leaves_a_lock_when_killed_and_starts_again(
    bench: Bench, stand_in: StandIn
) -> None:
    try:
        find_browser("chromium")
    except ConfigError as error:
        lacks(str(error))
    await bench.pair(stand_in, browser="chromium")
    lock = bench.session / "profile" / "SingletonLock"
    assert lock.is_symlink()
    await bench.kill_worker()
    assert read_lock(bench.session / "profile") is not Lock.LIVE
    assert lock.is_symlink(), "a killed browser leaves its lock"
    # As after a restore on another machine.
    lock.unlink()
    lock.symlink_to("another-host-17")
    await bench.start(browser="chromium")
    await bench.claimed(Status.CONNECTED)


@pytest.mark.slow
async def test_a_session_moves_over_from_local_auth_without_a_scan(
    tmp_path: Path, bench: Bench, stand_in: StandIn
) -> None:
    try:
        find_browser("chromium")
    except ConfigError as error:
        lacks(str(error))
    # The profile of a full browser is what LocalAuth keeps.
    await bench.pair(stand_in, browser="chromium")
    await bench.stop()
    export_local_auth(bench.session, tmp_path / "wwebjs_auth", "old")
    moved = Bench(tmp_path, bench.cache, stand_in.url, "moved")
    try:
        moved.session.mkdir()
        import_local_auth(tmp_path / "wwebjs_auth", moved.session)
        await moved.start()
        await moved.claimed(Status.CONNECTED)
        assert not any(each.status is Status.QR_REQUIRED for each in moved.claims)
    finally:
        await moved.clean_up()
