"""Sessions on a whaticket server, from outside: the whole agent and a stand-in of the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.backends.whaticket.keys import Shelf
from tests.standin.whaticket import words
from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import Pace, Session
from tests.world.world import WorldAgent

PEER, OTHER = "5511999990001", "5511999990002"
DOWN_AND_UP = ["PUT /whatsapp/7/disconnect", "PUT /whatsapp/7/start-session"]


def table(desk: StandIn) -> str:
    return f"""
[[backend]]
name = "desk"
engine = "whaticket"
url = "{desk.url}"
user = "{USER}"
password = "{PASSWORD}"
adopt = ["*"]
logs = ["file:{desk.log.path}"]
auth_folder = "{desk.keys.root}/{{id}}"
"""


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[StandIn]:
    async with StandIn.opened(tmp_path / "desk", pace=Pace(write_every=30.0)) as one:
        yield one


class Watched:
    """An agent that watches the sessions 7 and 8 of the stand-in, and questions about both."""

    def __init__(self, agent: WorldAgent, desk: StandIn) -> None:
        self.agent, self.desk = agent, desk
        self.sick: Session = desk.sessions["7"]

    async def connected(self) -> bool:
        found = (await self.agent.do("GET", "/api/instances"))["instances"]
        return [each["connection_status"] for each in found] == ["CONNECTED"] * 2

    async def id(self) -> str:
        rows = (await self.agent.do("GET", "/api/backends/desk/sessions"))["sessions"]
        return next(str(row["instance"]) for row in rows if row["remote"] == "7")

    async def told(self, kind: str, begins: str) -> bool:
        story = await self.agent.story(await self.id())
        return any(one == kind and sentence.startswith(begins) for one, sentence in story)

    def files(self, id: str = "7") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.desk.keys.root / id).iterdir()}

    def kept(self) -> dict[str, bytes]:
        """Removed records by name, as they can be put back."""
        shelf = Shelf(self.agent.state / "backends" / "desk" / "removed")
        return {it.name: it.content for removal in shelf.all("7") for it in removal.records}

    @property
    def acts(self) -> list[str]:
        """Requests that change something."""
        return [it for it in self.desk.requests if not it.startswith(("GET", "POST /auth"))]

    def fail(self, lines: list[str]) -> None:
        for line in lines:
            self.desk.log(line)
        # libsignal's lines name no session: the one that reconnects after them is meant.
        self.desk.log(f"Socket  {self.sick.name} Connection Update open undefined")


@pytest.fixture
async def watch(make_agent: Callable[..., WorldAgent], desk: StandIn, eventually: Any) -> Any:
    async def begin(settings: str = "") -> Watched:
        for id in ("7", "8"):
            session = desk.add(id)
            await session.pair(f"55110000000{id}", [PEER, OTHER], {})
            session.start()
        one = Watched(make_agent(table(desk) + settings), desk)
        await one.agent.start()
        await eventually(one.connected)
        await asyncio.sleep(10)  # its log is read from the second list on
        return one

    return begin


def named(peer: str) -> str:
    return words.bad_mac(f"{peer}.0")


UNNAMED = "ERROR [20-11-2026 12:00:00]: Invalid PreKey ID"


@pytest.mark.parametrize(
    ("lines", "gone"),
    [
        pytest.param([named(PEER)] * 5, {PEER}, id="named"),
        pytest.param([UNNAMED] * 5, {OTHER}, id="unnamed"),
        pytest.param([named(f"551199999000{n}") for n in range(1, 6)], {PEER, OTHER}, id="of five"),
        pytest.param([named(PEER)] * 3 + [UNNAMED] * 2, {PEER, OTHER}, id="mixed"),
        pytest.param([UNNAMED] * 5, set(), id="nothing damaged"),
    ],
)
async def test_five_errors_of_keys_end_with_new_keys_and_the_pairing(
    watch, eventually, lines, gone
):
    one = await watch()
    if OTHER in gone:
        await one.sick.damage(OTHER)
    before, untouched = one.files(), one.files("8")
    one.fail(lines)
    await eventually(lambda: one.acts == DOWN_AND_UP, within=40)
    await eventually(one.connected)
    removed = before.keys() - one.files().keys()
    assert {name[8:21] for name in removed if name.startswith("session-5")} == gone
    assert all(any(peer in name for peer in gone) for name in removed), "the pairing's own"
    assert removed == one.kept().keys()
    assert all(one.kept()[name] == before[name] for name in removed)
    await asyncio.sleep(310)
    assert one.acts == DOWN_AND_UP, "once"
    story = await one.agent.story(await one.id())
    steps = [text.partition(":")[0] for kind, text in story if kind == "repair_step"]
    assert steps == ["disconnect", "back up and remove", "start-session", "wait"][: 4 * bool(gone)]
    asked = (await one.agent.do("GET", "/api/repairs/statistics"))["interventions"]["asked"]
    assert (asked, set((await one.agent.show(await one.id()))["errors"])) == (0, {"crypto"})
    assert one.files()["creds.json"] == before["creds.json"]
    assert one.files("8") == untouched
    assert one.sick.logouts == 0


async def test_recover_joins_the_round_that_runs(watch, eventually):
    one = await watch()
    before = one.files()
    one.fail([named(PEER)] * 5)
    await eventually(lambda: one.told("verdict", "corrupted"))
    await one.agent.do("POST", f"/api/instance/{await one.id()}/recover?wait=120")
    assert one.acts == DOWN_AND_UP
    await eventually(lambda: one.told("repair_over", "recovered"))
    assert one.acts == DOWN_AND_UP, "once"
    removed = before.keys() - one.files().keys()
    assert removed
    assert all(PEER in name for name in removed)


async def test_errors_whose_session_cannot_be_told_are_a_trouble_of_the_server(watch, eventually):
    one = await watch()
    for _ in range(6):
        one.desk.log(UNNAMED)

    async def troubled() -> bool:
        troubles = (await one.agent.do("GET", "/api/troubles"))["troubles"]
        return "backend_logs" in [each["kind"] for each in troubles]

    await eventually(troubled)
    [backend] = (await one.agent.do("GET", "/api/backends"))["backends"]
    assert backend["up"]
    assert "errors about keys in its logs name no session" in backend["sentence"]
    assert one.acts == []


async def test_a_session_that_hangs_in_opening_is_restarted_with_its_pairing(watch, eventually):
    one = await watch()
    one.desk.faults.stuck_opening = True
    await one.sick.drop()
    await eventually(lambda: one.told("repair", "restart"))
    one.desk.faults.stuck_opening = False
    await eventually(one.connected)
    assert one.sick.logouts == 0


async def test_folders_of_keys_that_the_agent_cannot_use_are_told_before_a_repair(watch):
    one, root = await watch(), None
    for told in ("", "cannot write in"):
        assert (await one.agent.do("POST", "/api/backends/desk/check"))["warning"][:15] == told
        root = root or one.desk.keys.root.rename(one.desk.keys.root.with_name("elsewhere"))
