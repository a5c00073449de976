"""Sessions on a whaticket-like server: a real agent, its round, real files, a stand-in server."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.redaction import mark_of
from tests.daemon.conftest import RunningAgent, remote_settings
from tests.standin.whaticket import words
from tests.standin.whaticket.keys import FolderKeys
from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import DAMAGED, Session
from tests.waiting import GrowingLog

PEERS = [f"55119999900{number:02}" for number in range(1, 9)]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[StandIn]:
    async with StandIn.opened(tmp_path / "desk") as stand_in:
        yield stand_in


@pytest.fixture
async def agent(make_agent: Callable[..., RunningAgent], desk: StandIn) -> RunningAgent:
    return make_agent(table_of(desk), base=remote_settings())


def table_of(desk: StandIn) -> str:
    assert isinstance(desk.keys, FolderKeys)
    return f"""
[[backend]]
name = "desk"
engine = "whaticket"
url = "{desk.url}"
user = "{USER}"
password = "{PASSWORD}"
timeout = 2.0
adopt = ["*"]
logs = ["file:{desk.log.path}"]
auth_folder = "{desk.keys.root}/{{id}}"
"""


async def paired(desk: StandIn, id: str) -> Session:
    session = desk.add(id)
    await session.pair(f"55110000000{id}", PEERS, {})
    session.start()
    return session


def prints(desk: StandIn, id: str) -> dict[str, str]:
    assert isinstance(desk.keys, FolderKeys)
    found = {}
    for path in desk.keys.folder(id).iterdir():
        with suppress(FileNotFoundError):  # a round takes it out at this very moment
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def connected(agent: RunningAgent, count: int) -> bool:
    found = (await agent.do("GET", "/api/instances"))["instances"]
    up = [one for one in found if one["connection_status"] == "CONNECTED"]
    return len(up) == len(found) == count


async def id_of(agent: RunningAgent, remote: str) -> str:
    rows = (await agent.do("GET", "/api/backends/desk/sessions"))["sessions"]
    return next(str(row["instance"]) for row in rows if row["remote"] == remote)


async def test_five_errors_of_one_peer_begin_the_round_for_that_peer_alone(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick, well = await paired(desk, "7"), await paired(desk, "8")
    await agent.start()
    await eventually(lambda: connected(agent, 2))
    id, other = await id_of(agent, "7"), await id_of(agent, "8")
    before, untouched = prints(desk, "7"), prints(desk, "8")
    peer = PEERS[2]
    sick.memory[f"session-{peer}.0"] = DAMAGED
    for _ in range(5):
        assert not sick.receive(peer)
    await eventually(lambda: steps(agent, id, "regenerate_keys: done"), within=40)
    await eventually(lambda: connected(agent, 2))
    await eventually(lambda: sick.receive(peer))

    # Disconnected, then started, and nothing else was asked of it; the other was left alone.
    asked = [each for each in desk.requests if not each.startswith("GET")]
    assert [each for each in asked if "/7/" in each][:2] == [
        "PUT /whatsapp/7/disconnect",
        "PUT /whatsapp/7/start-session",
    ]
    assert not [each for each in asked if "/8/" in each]
    assert (sick.logouts, well.logouts) == (0, 0)
    after = prints(desk, "7")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert f"session-{peer}.0.json" in changed
    assert all(peer in name for name in changed), "another peer's keys, or the pairing's"
    assert {name: one for name, one in prints(desk, "8").items() if name in untouched} == untouched
    shown = await agent.show(id)
    # It was down and up for its new keys within 3 s: a look in between counts that, as this only.
    assert shown["reconnects_by_reason"] in ({"repair": 1}, {})
    told = [sentence for kind, sentence in await agent.story(id) if kind == "repair_step"]
    assert len(told) >= 4, told
    assert not await steps(agent, other, "regenerate")


async def test_many_peers_failing_is_a_corrupted_session_whose_pairing_is_kept(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick, well = await paired(desk, "7"), await paired(desk, "8")
    await agent.start()
    await eventually(lambda: connected(agent, 2))
    id, untouched = await id_of(agent, "7"), prints(desk, "8")
    creds = prints(desk, "7")["creds.json"]
    for peer in PEERS:
        sick.memory[f"session-{peer}.0"] = DAMAGED
    for peer in PEERS * 2:
        sick.receive(peer)
    await eventually(lambda: steps(agent, id, "corrupted:"), within=40)
    await eventually(lambda: steps(agent, id, "regenerate_keys: done"), within=40)
    await eventually(lambda: DAMAGED not in sick.memory.values(), within=60)
    await eventually(lambda: connected(agent, 2))
    assert prints(desk, "7")["creds.json"] == creds
    assert (sick.logouts, well.logouts) == (0, 0)
    assert {name: one for name, one in prints(desk, "8").items() if name in untouched} == untouched


async def steps(agent: RunningAgent, id: str, begins: str) -> bool:
    return any(sentence.startswith(begins) for _, sentence in await agent.story(id))


async def test_files_put_aside_by_the_round_are_listed_and_no_log_has_their_content(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick = await paired(desk, "7")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    id = await id_of(agent, "7")
    sick.memory[f"session-{PEERS[0]}.0"] = DAMAGED
    for _ in range(6):
        sick.receive(PEERS[0])
    await eventually(lambda: steps(agent, id, "regenerate_keys: done"), within=40)
    kept = agent.state / "backends" / "desk" / "kept"
    manifests = list(kept.rglob("manifest.json"))
    assert manifests, [str(path) for path in kept.rglob("*")]
    secret = next(iter(prints(desk, "7")))
    assert secret
    for text in (agent.log, *map(GrowingLog, agent.state.rglob("worker.log"))):
        assert "buffer" not in text.read_text().lower()
        assert PASSWORD not in text.read_text().replace(USER, "").split()


async def test_a_session_that_hangs_in_opening_is_restarted_with_its_pairing(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick = await paired(desk, "7")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    id = await id_of(agent, "7")
    desk.faults.stuck_opening = True
    await sick.drop()
    await eventually(lambda: steps(agent, id, "restart"), within=90)
    desk.faults.stuck_opening = False
    await eventually(lambda: connected(agent, 1), within=90)
    assert sick.logouts == 0


async def test_a_server_that_is_gone_is_one_finding(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    await paired(desk, "7")
    await paired(desk, "8")
    await agent.start()
    await eventually(lambda: connected(agent, 2))
    await desk.go_away()
    id = (await agent.do("GET", "/api/instances"))["instances"][0]["id"]

    async def held() -> str:
        return str((await agent.show(id))["health"]["reason"])

    await eventually(held, "backend_down")
    assert (await agent.do("GET", "/api/backends/desk"))["reason"] == "unreachable"
    await desk.listen()
    await eventually(lambda: connected(agent, 2), within=60)
    assert not [each for each in desk.requests if each.startswith("PUT")]


async def test_a_pattern_of_the_settings_counts_from_the_servers_log_to_new_keys(
    make_agent: Callable[..., RunningAgent], desk: StandIn, eventually: Any
) -> None:
    patterns = '[crypto]\npatterns = ["counts: ratchet is odd", "benign: bad mac of a bot"]\n'
    agent = make_agent(table_of(desk) + patterns, base=remote_settings())
    await paired(desk, "7")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    id, peer = await id_of(agent, "7"), PEERS[2]

    def say(what: str, times: int) -> None:
        line = {"level": 50, "key": {"participant": f"{peer}@s.whatsapp.net"}, "msg": "x"}
        line["err"] = {"type": "Error", "message": what}
        with desk.log.path.open("a") as log:
            log.write((json.dumps(line) + "\n") * times)

    say("Bad MAC of a bot", 9)
    say("the Ratchet is ODD today", 4)
    await eventually(lambda: steps(agent, id, "regenerate_keys"), within=40)

    async def errors() -> int:
        return int((await agent.show(id))["errors"]["crypto"])

    await eventually(errors, 4)  # the harmless ones are none
    shown = await agent.show(id)
    assert shown["crypto_operations"] == {}, "what was read is not known, and neither is a share"
    assert f"crypto error own: ratchet is odd of {mark_of(peer)}" in agent.log.read_text()


async def test_a_server_that_refuses_every_start_opens_the_circuit_of_the_session(
    agent, desk, eventually
):
    first = await paired(desk, "1")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    desk.faults.refuses_start = 500
    first.pace.restart_after = 1000.0  # its server leaves it down
    await first.drop(status="DISCONNECTED")

    async def circuit():
        found = (await agent.do("GET", "/reconnection-status"))["instances"]
        return [each["circuit"] for each in found.values()]

    await eventually(circuit, ["open"], within=60)
    id = await id_of(agent, "1")

    async def opened():
        return [text for kind, text in await agent.story(id) if kind == "session_circuit_open"]

    sentences = await eventually(opened)  # it is shown a moment before it is written down
    assert len(sentences) == 1 and f"wa-agent recover {id}" in sentences[0]

    def logged() -> list[str]:
        return [line for line in agent.log.read_text().splitlines() if sentences[0] in line]

    (line,) = await eventually(logged)  # a moment after it is written down
    assert "WARN" in line

    desk.faults.refuses_start = 0
    await agent.do("POST", f"/api/instance/{id}/recover?wait=120")
    await eventually(lambda: connected(agent, 1), within=60)
    kinds = [kind for kind, _ in await agent.story(id)]
    assert kinds.count("session_circuit_closed") == 1, "the command that it named closed it"


NO_PEER = "Session error:Error: Bad MAC Error: Bad MAC\n    at Object.verifyMAC (x.js)\n"


def fail_without_a_name(desk: StandIn, count: int) -> None:
    for _ in range(count):
        desk.log(NO_PEER)
        desk.log("a line that says nothing")


async def test_errors_that_name_no_peer_end_with_the_damaged_records_taken_out(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick = await paired(desk, "7")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    id = await id_of(agent, "7")
    damaged = {f"session-{peer}.0.json" for peer in PEERS[:2]}
    for peer in PEERS[:2]:
        await sick.damage(peer)
    before = prints(desk, "7")
    fail_without_a_name(desk, 7)
    await eventually(lambda: steps(agent, id, "regenerate_keys: done"), within=60)
    assert before.keys() - prints(desk, "7").keys() == damaged
    await eventually(lambda: connected(agent, 1))
    assert sick.logouts == 0
    # The server counts no messages: their number is unknown, and so is a share of them.
    figures = (await agent.do("GET", "/performance-metrics"))["instances"][id]
    assert 0 < figures["averageResponseTime"] < 60, "seconds, of the probes just now"
    assert (figures["messagesProcessed"], figures["messagesPerMinute"]) == (None, None)
    told = str((await agent.do("GET", f"/api/instance/{id}/details"))["crypto_operations"])
    assert told == "{}"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param("Session error:PreKeyError: Invalid PreKey ID\n", id="unnamed"),
        pytest.param("{peer}", id="of five contacts"),
    ],
)
async def test_errors_without_a_damaged_record_end_with_one_disconnect_and_start(
    agent: RunningAgent, desk: StandIn, eventually: Any, error: str
) -> None:
    sick = await paired(desk, "7")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    id, before = await id_of(agent, "7"), prints(desk, "7")

    def fail() -> None:
        for number in range(5):
            jid = f"552199999000{number}@s.whatsapp.net"
            desk.log(error.format(peer=words.pino(jid, "Invalid PreKey ID", "PreKeyError")))
            desk.log("a line that says nothing")

    def changes() -> list[str]:
        return [each for each in desk.requests if not each.startswith("GET") and "/7/" in each]

    fail()
    await eventually(lambda: steps(agent, id, "reconnect: done"), within=60)
    down_and_up = ["PUT /whatsapp/7/disconnect", "PUT /whatsapp/7/start-session"]
    assert changes() == down_and_up
    assert prints(desk, "7") == before
    await eventually(lambda: sick.status == "CONNECTED")
    await eventually(lambda: connected(agent, 1))

    fail()

    async def judged() -> tuple[int, str]:
        shown = await agent.show(id)
        return shown["crypto_errors_lately"], shown["health"]["verdict"]

    await eventually(judged, (5, "degraded"), within=60)  # both last for five minutes
    assert changes() == down_and_up, "no second one within regenerate_every"
    assert sick.logouts == 0


async def test_errors_whose_session_cannot_be_told_are_said_while_the_server_is_up(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    await paired(desk, "7")
    await paired(desk, "8")
    await agent.start()
    await eventually(lambda: connected(agent, 2))
    fail_without_a_name(desk, 6)

    async def told() -> bool:
        await agent.do("POST", "/api/backends/desk/check")
        [backend] = (await agent.do("GET", "/api/backends"))["backends"]
        words = "crypto errors in its logs of the last hour name no session"
        return backend["up"] and words in backend["sentence"]

    await eventually(told, within=30)

    async def troubled() -> bool:
        troubles = (await agent.do("GET", "/api/troubles"))["troubles"]
        return "backend_logs" in [one["kind"] for one in troubles]

    await eventually(troubled, within=60)
    events = (await agent.do("GET", "/api/events?kind=backend_warning"))["events"]
    assert any("name no session" in one["sentence"] for one in events)
