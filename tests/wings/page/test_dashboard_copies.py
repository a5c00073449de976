"""The page of copies: a way back from the trash, and to a snapshot."""

from collections.abc import Callable

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import check_manners, listening, make_agent, picture, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

TRUSTED = "\n[api]\ntrust_loopback = true\n"
YES = "dialog[open] .danger"


async def test_a_deleted_session_comes_back_from_the_trash_and_a_snapshot_is_restored(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    for id in ("sales", "support"):
        await agent.create(id)
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
    made = await agent.do("POST", "/api/instance/sales/snapshots", {})
    await agent.do("DELETE", "/api/instance/support")
    (trashed,) = (await agent.do("GET", "/api/trash"))["trash"]

    await watcher.size(1280, 900)
    await watcher.go(f"http://{agent.listen}/")
    await watcher.click("#to-copies")
    await watcher.until(
        f"document.querySelector('#copies-trash [data-copy=\"{trashed['name']}\"]')"
    )
    await picture(watcher, "copies")
    await watcher.click("#copies-trash .copy-row button")
    await watcher.click(YES)
    await watcher.until("document.querySelector('.toasts').innerText.includes('support is back')")
    assert (await agent.show("support"))["paired"]

    await watcher.click(f"#copies-snapshots [data-copy='{made['name']}'] button")
    await watcher.click(YES)
    await watcher.until("document.querySelector('.toasts').innerText.includes('sales runs on')")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.until("document.querySelector('#copies-trash .copy-row')")
    await watcher.size(390, 844, phone=True)
    assert await watcher.run("document.documentElement.scrollWidth") <= 390
    await watcher.click("#copies .back")
    await watcher.until("document.querySelectorAll('.card').length === 2")
    await check_manners(watcher, agent)
