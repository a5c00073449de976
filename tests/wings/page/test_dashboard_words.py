"""What the dashboard offers and says: only what helps, in words of people."""

from collections.abc import Callable

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import check_manners, listening, make_agent, pill, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

TRUSTED = "\n[api]\ntrust_loopback = true\n"
OFFERED = "[...document.querySelectorAll('.menu [data-do]')].map((e) => e.dataset.do)"


async def offered(watcher: Watcher, id: str) -> set[str]:
    await watcher.click(f"[data-id={id}] .dots")
    await watcher.until("document.querySelector('.menu')")
    found = set(await watcher.run(OFFERED))
    await watcher.press("Escape", 27)
    return found


async def test_a_session_that_waits_for_a_scan_is_offered_no_repair_and_no_logout(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("scans", scan="manual")
    await agent.create("paired")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("paired", "good"))
    await watcher.until(pill("scans", "warn"))
    assert {"recover", "log-out"} <= await offered(watcher, "paired")
    assert not {"recover", "log-out"} & await offered(watcher, "scans")
    await watcher.click("[data-id=scans] .card-name")
    facts = "document.querySelector('#instance .facts').innerText"
    await watcher.until(f"{facts}.includes('Waits for a scan')")
    assert "QR_REQUIRED" not in await watcher.run("document.querySelector('#instance').innerText")
    await check_manners(watcher, agent)


async def test_a_logout_that_was_asked_for_is_told_as_one_and_times_have_date_and_zone(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await agent.do("PATCH", "/api/instance/sales", {"settings": {"scan": "manual"}})
    await agent.do("POST", "/api/instance/sales/logout", {"confirm": True})
    await eventually(lambda: agent.status("sales"), "QR_REQUIRED")
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    story = "document.querySelector('#instance .story')"
    await watcher.until(f"{story}.innerText.includes('logged out as asked')")
    assert "removed this linked device" not in await watcher.run(f"{story}.innerText")
    assert await watcher.run(f"{story}.querySelectorAll('.story-entry.bad').length") == 0
    title = await watcher.run(f"{story}.querySelector('time').title")
    assert "20" in title and ("UTC" in title or "GMT" in title), title
    zone = await watcher.run("document.querySelector('#instance .story-zone').textContent")
    assert zone.removeprefix("times in ") in title, "seen without a mouse"


async def test_the_row_of_a_session_says_that_its_snapshots_fail(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(
        TRUSTED + "[sessions]\nsnapshot_interval = 0.5\nsnapshot_stable = 0.1\nsnapshots = 2\n"
    )
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    (agent.state / "sessions" / "sales" / "session" / "creds").symlink_to("/etc/passwd")
    await watcher.go(f"http://{agent.listen}/")
    row = "document.querySelector('[data-id=sales]')"
    await watcher.until(f"{row}?.innerText.includes('could not make a snapshot')")
