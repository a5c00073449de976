"""The pages: foreign text can do nothing in them, and nothing lies over another."""

import gzip
from typing import Any

from agent.core.model import ConnectionStatus, Health, HealthVerdict, Instance, InstanceId
from agent.page.pages import PARTS
from agent.supervise.gate import Alone
from tests.api.conftest import House, OpenHouse
from tests.fakes.supervisor import make_view
from tests.page.watcher import Watcher
from tests.sessions import changed

# The cells whose content is wider than they are; an ellipsis stands for the rest of a name.
_CROWDED = """[...document.querySelectorAll('th, td:not(.cell-name)')]
    .filter((cell) => cell.checkVisibility() && cell.scrollWidth > cell.clientWidth)
    .map((cell) => cell.innerText)"""
_TITLES = "[...document.querySelectorAll('.panel:not([hidden]) h2')].map((it) => it.textContent)"
_SHOWN = "document.querySelector('[data-machine]').closest('.panel').innerText"
_ASKED = "document.querySelector('dialog[open]').innerText"
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
            assert (await local.get(path, headers={"If-None-Match": '"other"'})).status == 200
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


async def test_what_an_action_does_is_told_as_its_engine_does_it(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    there = {"backend": "evo", "remote": "shop-1"}
    shop = Instance(InstanceId("sales"), "evolution", True, there, 0.0)
    async with open_house(trust_loopback=True) as house:
        house.supervisor.known[shop.id] = changed(make_view("sales"), instance=shop)
        await watcher.go(house.url + "/#/instance/sales")
        for action, says in (("clean-up", "with its chats"), ("delete", "session stays on evo")):
            await watcher.click(f"[data-do={action}]")
            await watcher.until(f"{_ASKED}.includes('{says}')")
            assert "trash" not in await watcher.run(_ASKED)
            await watcher.press("Escape")


async def test_no_column_of_a_hundred_sessions_lies_over_another(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    corrupted = HealthVerdict(Health.CORRUPTED, ConnectionStatus.CONNECTED, "", "11 of 14 failed")
    async with open_house(trust_loopback=True) as house:
        for number in range(100):
            id = InstanceId(f"shop-with-a-long-name-{number}")
            more = {"account": f"55119999900{number:02}", "sentence": "word " * 30}
            house.supervisor.known[id] = make_view(id, verdict=corrupted, **more)
        for width in (1280, 390):
            await watcher.size(width, 844, phone=width == 390)
            await watcher.go(house.url + "/")
            await watcher.until("document.querySelectorAll('[data-id]').length >= 30")
            assert await watcher.run("document.documentElement.scrollWidth") <= width
            assert await watcher.run(_CROWDED) == []
        await watcher.run("scrollTo(0, 2000); document.querySelector('.row-name').click()")
        await watcher.until("scrollY === 0")
        await watcher.run("history.back()")
        await watcher.until("scrollY === 2000")
        await watcher.run("document.querySelector('[type=search]').focus()")
        await watcher.type("5511999990042")
        await watcher.until("document.querySelectorAll('[data-id]').length === 1")


class Fleet(Alone):
    """A fleet of three machines, of which one was lost with five sessions."""

    leased = True
    halt: Any = None

    async def show(self) -> Any:
        row = {"address": "10.0.0.1:1", "used": 4, "capacity": 40, "owned": 5, "renewed_seconds": 3}
        states = {"a": "up", "b": "drained", "c": "lost"}
        rows = [{**row, "name": it, "state": states[it]} for it in states]
        rows[2]["renewed_seconds"] = None
        lost = [{"machine": "c", "id": f"shop-{n}", "cause": FOUL} for n in range(5)]
        shown = {"machine": "a", "machines": rows, "troubles": lost, "halt": self.halt}
        return {**shown, "notes": ["no copy in sync: 5"]}


async def test_machines_of_a_fleet_are_shown_and_none_without_one(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    await watcher.size(390, 844, phone=True)
    async with open_house(trust_loopback=True) as house:
        await watcher.go(house.url + "/")
        await watcher.until(f"{_TITLES}.length && !{_TITLES}.includes('Machines')")
        fleet = house.supervisor.gate.fleet = Fleet()
        await watcher.go(house.url + "/")
        await watcher.until(f"{_SHOWN}.includes('a (this machine)')")
        pills = "[...document.querySelectorAll('[data-machine] .pill')].map((e) => e.className)"
        assert await watcher.run(pills) == ["pill good", "pill warn", "pill bad"]
        shown = await watcher.run(_SHOWN)
        for said in ("renewed 3 s ago", "5 sessions, runs 4 of at most 40", FOUL, "no copy"):
            assert said in shown
        links = "[...document.querySelectorAll('#overview .columns a')].map((e) => e.hash)"
        assert await watcher.run(links) == [f"#/instance/shop-{n}" for n in range(3)]
        assert await watcher.run("document.documentElement.scrollWidth") <= 390
        fleet.halt = {"by": "b", "why": "the store went back"}
        await watcher.until(f"{_SHOWN}.includes('Halted by b: the store went back')")
        assert watcher.complaints == []
