"""The pages: foreign text can do nothing in them, and nothing lies over another."""

import gzip

from agent.core.model import ConnectionStatus, Health, HealthVerdict, InstanceId
from agent.page.pages import PARTS
from tests.api.conftest import House, OpenHouse
from tests.fakes.supervisor import make_view
from tests.page.watcher import Watcher

# The cells whose content is wider than they are; an ellipsis stands for the rest of a name.
_CROWDED = """[...document.querySelectorAll('th, td:not(.cell-name)')]
    .filter((cell) => cell.checkVisibility() && cell.scrollWidth > cell.clientWidth)
    .map((cell) => cell.innerText)"""
FOUL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


async def test_f83_a_page_may_run_nothing_but_our_own_files(house: House) -> None:
    async with house.local(base_url="http://localhost") as local:
        for path in ("/", "/docs", "/page/dashboard.js"):
            answer = await local.get(path)
            parts = answer.headers["Content-Security-Policy"].split(";")
            policy = dict(part.strip().split(" ", 1) for part in parts)
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_page_travels_packed_and_once_while_it_is_the_same(house: House) -> None:
    async with house.local(base_url="http://localhost", auto_decompress=False) as local:
        sent = plain = 0
        for path in ("/", "/docs", *(f"/page/{name}" for name in PARTS)):
            packed = await local.get(path, headers={"Accept-Encoding": "gzip"})
            assert packed.headers["Content-Encoding"] == "gzip", path
            body = await packed.read()
            whole = await local.get(path, headers={"Accept-Encoding": "identity"})
            assert gzip.decompress(body) == await whole.read(), path
            again = await local.get(path, headers={"If-None-Match": packed.headers["ETag"]})
            assert (again.status, await again.read()) == (304, b""), path
            assert "default-src 'none'" in again.headers["Content-Security-Policy"]
            other = await local.get(path, headers={"If-None-Match": '"other"'})
            assert other.status == 200
            sent += len(body)
            plain += int(whole.headers["Content-Length"])
    assert sent < plain / 2


async def test_f83_a_browser_shows_foreign_text_and_obeys_none(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    async with open_house(trust_loopback=True) as house:
        id = InstanceId("sales")
        view = make_view(id, status=ConnectionStatus.QR_REQUIRED, sentence=FOUL)
        house.supervisor.known[id] = view
        await watcher.go(house.url + "/")
        await watcher.until("document.querySelector('[data-id=sales]')")
        shown = await watcher.run("document.documentElement.outerHTML")
    assert "&lt;img src=x onerror=" in shown
    assert "<title>wa-agent</title>" in shown
    assert "<img src=" not in shown


async def test_no_column_of_a_hundred_sessions_lies_over_another(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    corrupted = HealthVerdict(Health.CORRUPTED, ConnectionStatus.CONNECTED, "", "11 of 14 failed")
    async with open_house(trust_loopback=True) as house:
        for number in range(100):
            id = InstanceId(f"shop-with-a-long-name-{number}")
            house.supervisor.known[id] = make_view(id, verdict=corrupted, sentence="word " * 30)
        for width in (1280, 390):
            await watcher.size(width, 844, phone=width == 390)
            await watcher.go(house.url + "/")
            await watcher.until("document.querySelectorAll('[data-id]').length >= 30")
            assert await watcher.run("document.documentElement.scrollWidth") <= width
            assert await watcher.run(_CROWDED) == []
