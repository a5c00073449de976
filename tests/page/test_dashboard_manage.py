"""The page of the agent itself: keys, webhooks, a session out and in; and what leads there."""

from tests.page.browsing import Listening, check_manners, picture
from tests.page.watcher import Watcher

WIDE = "document.documentElement.scrollWidth"


async def test_a_key_is_made_shown_once_used_and_revoked(
    listening: Listening, watcher: Watcher
) -> None:
    agent = await listening()
    await agent.create("sales")
    await agent.create("other")
    admin = (await agent.do("POST", "/api/keys", {"name": "me", "scopes": ["admin"]}))["token"]
    await watcher.size(390, 844, phone=True)
    await watcher.go(f"http://{agent.listen}/#/agent")
    await watcher.enter(admin)
    await watcher.until("document.querySelector('#keys .row').innerText.includes('this page')")
    assert await watcher.run(WIDE) <= 390, "the bar has room for all it offers"
    right = "document.querySelector('#forget').getBoundingClientRect().right"
    assert await watcher.run(right) < 390
    await picture(watcher, "agent-phone")

    await watcher.click("[data-do=new-key]")
    await watcher.until("document.activeElement.id === 'key-name'")
    await watcher.type("shop")
    await watcher.choose("#key-scope", "some")
    await watcher.click("dialog[open] .primary")
    # The interface's own words.
    await watcher.until("document.querySelector('dialog .wrong').textContent.includes('scopes')")
    await watcher.choose("#key-sessions", "sales")
    await watcher.click("dialog[open] .primary")
    await watcher.until("document.querySelector('#new-key').textContent.startsWith('wak_')")
    token = await watcher.run("document.querySelector('#new-key').textContent")
    await picture(watcher, "new-key")
    assert await watcher.run("document.activeElement.textContent") == "Copy"
    await watcher.click("dialog[open] .primary")
    await watcher.until("!document.querySelector('dialog').open")
    bearer = {"Authorization": f"Bearer {token}"}
    (seen,) = (await agent.ask("GET", "/api/instances", headers=bearer))[1]["instances"]
    assert seen["id"] == "sales"

    await watcher.go("about:blank")
    await watcher.go(f"http://{agent.listen}/#/agent")
    row = f'[data-key="{token[4:12]}"]'
    await watcher.until(f"document.querySelector('{row}').innerText.includes('last used')")
    told = await watcher.run(f"document.querySelector('{row}').innerText")
    assert "shop" in told and "instance:sales" in told, told
    assert token not in await watcher.run("document.body.innerHTML")
    await watcher.click(f"{row} button")
    await watcher.click("dialog[open] .danger")
    await watcher.until(f"!document.querySelector('{row}')")
    assert (await agent.ask("GET", "/api/instances", headers=bearer))[0] == 401
    await check_manners(watcher, agent)
