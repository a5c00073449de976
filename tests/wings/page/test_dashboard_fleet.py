"""The dashboard of a fleet in a real browser: machines, owners, old states, drains and moves."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import ConnectionStatus, Health, HealthVerdict, InstanceId
from tests.api.conftest import House, OpenHouse
from tests.cli.fleet.conftest import machine
from tests.fakes.supervisor import make_view
from tests.wings.page.browsing import picture, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["watcher"]

FLEET: dict[str, Any] = {
    "machine": "a",
    "address": "https://a.example:8471",
    "database": {"reachable": True, "error": "", "since_seconds": 90.0},
    "lease": {"holds": True, "seconds_left": 14.2, "by": "renewal"},
    "halted": "",
    "settled": True,
    "machines": [
        machine("a", sessions=2),
        machine("b", labels={"zone": "west"}, sessions=1),
        machine("c", alive=False, reachable=False, seconds_since_renewal=94.0, sessions=1),
    ],
    "waiting": [{"id": "web-1", "why": "its machine is lost", "machine": "c"}],
    "moving": [{"id": "sales", "to": "b"}],
}
OWNERS = {"sales": ("a", 0.0), "support": ("a", 0.0), "west": ("b", 1.2), "web-1": ("c", 94.0)}

# The fleet's answers stand before the agent's own; what the page sends is noted.
_BEFORE = """(() => {
    window.__fleet = %s; window.__owners = %s; window.__sent = [];
    const ask = window.fetch;
    const answer = (body, status = 200) =>
        new Response(JSON.stringify(body), {status, headers: {"Content-Type": "application/json"}});
    window.fetch = async (path, how = {}) => {
        if (how.method === "POST" && /fleet|move|disable/.test(path)) {
            window.__sent.push([path, JSON.parse(how.body)]);
            const stored = {command: "5f1c", sentence: "c is away; stored"};
            return answer(/web-1/.test(path) ? stored : {});
        }
        if (path === "/api/fleet")
            return window.__fleet ? answer(window.__fleet) : answer({error: "no_fleet"}, 404);
        const found = await ask(path, how);
        if (path === "/api/caller")
            return answer({...await found.json(), fleet: Boolean(window.__fleet)});
        if (!path.startsWith("/api/instances")) return found;
        const page = await found.json();
        for (const one of page.instances)
            [one.machine, one.as_of_seconds] = window.__owners[one.id];
        return answer(page);
    };
})()"""


_CHOOSE = """(() => {
    document.querySelector("[data-id=%s] .dots").click();
    const offered = [...document.querySelectorAll(".menu [data-do]")];
    offered.find((one) => one.dataset.do === "%s").click();
    return offered.map((one) => one.dataset.do);
})()"""


async def enter(watcher: Watcher, house: House, fleet: dict[str, Any] | None) -> None:
    for id in OWNERS:
        house.supervisor.known[InstanceId(id)] = make_view(id)
    lost = HealthVerdict(Health.DEGRADED, ConnectionStatus.RECONNECTING, "connection_lost", "")
    house.supervisor.known[InstanceId("support")] = make_view(
        "support", status=ConnectionStatus.RECONNECTING, verdict=lost, sentence="the line was lost"
    )
    source = _BEFORE % (json.dumps(fleet), json.dumps(OWNERS))
    await watcher.call("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    await watcher.go(house.url + "/")
    # The page that was shown before has cards as well.
    here = f"location.href.startsWith('{house.url}/')"
    await watcher.until(f"{here} && document.querySelectorAll('.card').length === 4")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_machines_owners_and_old_states_are_seen(
    open_house: OpenHouse, watcher: Watcher, tmp_path: Path, scheme: str
) -> None:
    async with open_house(trust_loopback=True) as house:
        await watcher.colours(scheme)
        await watcher.size(1280, 900)
        await enter(watcher, house, FLEET)
        await watcher.until("document.querySelector('[data-machine=c] .pill.bad')")
        text = "document.querySelector('.machine-row').innerText"
        assert "It renewed its lease 1 min 34 s ago; 1 session waits for it." in await watcher.run(
            text
        )
        stale = await watcher.run("document.querySelector('[data-id=web-1].stale-state').innerText")
        assert "as it was 1 min 34 s ago; c does not answer" in stale
        assert not await watcher.run("document.querySelector('[data-id=west].stale-state')")
        assert "on machine b" in await watcher.run(
            "document.querySelector('[data-id=west]').innerText"
        )
        lists = await watcher.run(
            "[...document.querySelectorAll('.machines-list')].map((e) => e.innerText).join(' ')"
        )
        assert "web-1 its machine is lost (c)" in lists
        assert "sales to b" in lists
        await picture(watcher, f"fleet-{scheme}")
        await watcher.size(390, 844, phone=True)
        assert await watcher.run("document.documentElement.scrollWidth") <= 390
        await picture(watcher, f"fleet-phone-{scheme}")
        assert await watcher.violations() == []
        assert watcher.complaints == []


async def test_drain_forget_and_move_ask_first(open_house: OpenHouse, watcher: Watcher) -> None:
    async with open_house(trust_loopback=True) as house:
        await watcher.size(1280, 900)
        await enter(watcher, house, FLEET)
        await watcher.click("[data-machine=b] [aria-label='Drain b']")
        assert await watcher.run("window.__sent.length") == 0
        await watcher.click("dialog .danger")
        await watcher.until("window.__sent[0][0] === '/api/fleet/machines/b/drain'")
        assert not await watcher.run(
            "document.querySelector('[data-machine=a] [aria-label=\"Forget a\"]').checkVisibility()"
        )
        await watcher.click("[data-machine=c] [aria-label='Forget c']")
        await watcher.until("document.querySelector('dialog .danger').disabled")
        await watcher.type("c")
        await watcher.click("dialog .danger")
        await watcher.until("window.__sent[1][1].confirm === 'c'")
        assert "snapshot" in await watcher.run(_CHOOSE % ("support", "move"))
        await watcher.until("document.activeElement.id === 'move-to'")
        options = await watcher.run(
            "[...document.querySelector('#move-to').options].map((e) => e.value)"
        )
        assert options == ["", "b"], "neither its own machine nor a lost one"
        await watcher.run("document.querySelector('#move-to').value = 'b'")
        await watcher.click("dialog .primary")
        await watcher.until("window.__sent[2][0] === '/api/instance/support/move'")
        assert await watcher.run("window.__sent[2][1]") == {"to": "b"}
        # In one go: a page that scrolls closes the menu.
        offered = await watcher.run(_CHOOSE % ("web-1", "disable"))
        assert set(offered) == {"stop", "restart", "disable"}, "kept until its machine is back"
        await watcher.until(
            "document.querySelector('#toasts').innerText.includes('c is away; stored')"
        )


async def test_sessions_of_one_machine_are_chosen(open_house: OpenHouse, watcher: Watcher) -> None:
    async with open_house(trust_loopback=True) as house:
        await watcher.size(1280, 900)
        await enter(watcher, house, FLEET)
        await watcher.click("[data-machine=b] [aria-label='Show the sessions on b']")
        await watcher.until("document.querySelectorAll('.card').length === 1")
        assert await watcher.run("document.querySelector('.card').dataset.id") == "west"
        await watcher.run(
            "(() => { const e = document.querySelector('[data-do=machine]');"
            " e.value = ''; e.dispatchEvent(new Event('change')); })()"
        )
        await watcher.until("document.querySelectorAll('.card').length === 4")


async def test_trouble_of_the_database_is_said_and_nothing_is_there_without_a_fleet(
    open_house: OpenHouse, watcher: Watcher
) -> None:
    away = {"reachable": False, "error": "no answer within 2 s", "since_seconds": 75.0}
    async with open_house(trust_loopback=True) as house:
        await enter(watcher, house, {**FLEET, "database": away})
        await watcher.until("document.querySelector('[aria-label=Machines] .notice-line')")
        said = await watcher.run("document.querySelector('[aria-label=Machines]').innerText")
        assert "has not answered for 1 min 15 s: no answer within 2 s" in said
        assert await watcher.run("document.querySelector('[data-id=west].stale-state') !== null")
    async with open_house(trust_loopback=True) as house:
        await enter(watcher, house, None)
        shown = "document.querySelector('%s').checkVisibility()"
        assert not await watcher.run(shown % "[aria-label=Machines]")
        assert not await watcher.run(shown % "[data-do=machine]")
        await watcher.run("document.querySelector('[data-id=west] .dots').click()")
        assert await watcher.run("document.querySelector('[data-do=disable]') !== null")
        assert not await watcher.run("document.querySelector('[data-do=move]')")
