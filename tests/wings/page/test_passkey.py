"""An account that needs a passkey, on the page: told on its card, and asked about twice."""

from collections.abc import Callable

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import check_manners, listening, make_agent, picture, pill, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

TRUSTED = "\n[api]\ntrust_loopback = true\n"
SHAPES = (("wide", 1280, False), ("phone", 390, True))


async def pictures(watcher: Watcher, name: str) -> None:
    """In both widths and colours, where nothing may scroll sideways."""
    for shape, width, phone in SHAPES:
        await watcher.size(width, 860, phone=phone)
        for colours in ("light", "dark"):
            await watcher.colours(colours)
            assert await watcher.run("document.documentElement.scrollWidth") <= width
            await picture(watcher, f"passkey-{name}-{shape}-{colours}")
    await watcher.size(1280, 860)


async def test_the_card_shows_a_passkey_and_asks_twice_before_its_pairing_ends(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(TRUSTED)
    await agent.start()
    for id, fault in (("wall", "passkey"), ("sales", "")):
        await agent.create(id, scan="manual" if fault else "auto")
        if fault:
            await eventually(lambda id=id: agent.status(id), "QR_REQUIRED")  # type: ignore[misc]
            path = f"/api/instance/{id}/sandbox"
            await agent.do("POST", f"{path}/fault", {"fault": fault})
            await agent.do("POST", f"{path}/scan")
    await watcher.size(1280, 860)
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("sales", "good"))
    await agent.do("PUT", "/api/instance/sales/passkey", {"needed": True})
    card = "document.querySelector('[data-id={}]').innerText.includes('{}')"
    await watcher.until(card.format("wall", "needs a passkey to link"))
    await watcher.until(card.format("wall", "wa-agent pair"))
    await watcher.until(card.format("wall", "Needs a passkey"))
    assert not await watcher.run(
        "document.querySelector('[data-id=wall] a.button').checkVisibility()"
    )
    await watcher.until(card.format("sales", "needs a passkey to link"))
    await watcher.until("document.body.innerText.includes('asks the owner of wall for a passkey')")
    await pictures(watcher, "overview")
    await watcher.click("[data-id=wall] a.card-name")
    await watcher.until("document.querySelector('.qr img').naturalWidth > 100")
    await pictures(watcher, "wall")

    await watcher.run("location.hash = '#/instance/sales'")
    await watcher.click("#instance [data-do=log-out]")
    await watcher.until("document.querySelector('dialog').innerText.includes('Log sales out?')")
    await watcher.click("dialog .danger")
    await watcher.until("document.activeElement.id === 'dialog-typed'")
    await watcher.until("document.querySelector('dialog').innerText.includes('Lose the pairing')")
    assert await watcher.run("document.querySelector('dialog .danger').disabled")
    await pictures(watcher, "dialog")
    assert (await agent.show("sales"))["connection_status"] == "CONNECTED"
    await watcher.type("sales")
    await watcher.click("dialog .danger")
    await eventually(lambda: agent.status("sales"), "AUTH_FAILURE")
    await check_manners(watcher, agent)
