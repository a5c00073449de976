"""What an operator does with the README: export, start Debian's servers, be notified, repair."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config.alerts import alert_table
from agent.metrics.dashboards import queries
from tests.conftest import Eventually
from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.daemon.test_backends import table
from tests.ports import free_port
from tests.standin.evolution import StandIn
from tests.system_pack.conftest import Receiver, StartServer, fetch, run_program

METRIC = re.compile(r"\b(?:wa|process)_[a-z_]+\b")
IMPATIENT = {
    "WA_AGENT_RECONNECT__MAX": "1",
    "WA_AGENT_RECONNECT__BREAKER_PAUSE": "2",
    "WA_AGENT_RECONNECT__ATTEMPTS": "1000",
    "WA_AGENT_MEMORY__INTERVAL": "1",
}


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    one = await StandIn.open()
    yield one
    await one.close()


async def test_a_real_scrape_has_every_metric_that_is_named(
    make_agent: Callable[..., RunningAgent], standin: StandIn, eventually: Eventually
) -> None:
    agent = make_agent(table(standin))
    agent.config.chmod(0o600)
    await agent.start(IMPATIENT)
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    expressions = [alert.condition.promql() for alert in alert_table()]
    named = {name for text in (*expressions, *queries()) for name in METRIC.findall(text)}
    assert len(named) > 30
    # There only while an event waits for a webhook; the test of all that was promised has it.
    named.remove("wa_agent_outbox_oldest_timestamp_seconds")
    # And there only while a message waits to be sent; tests/wings/messages/out looks for it.
    named.remove("wa_outbox_oldest_timestamp_seconds")
    # There only of a session that has a reason: one whose network is away has.
    await agent.create("away")
    await eventually(lambda: agent.status("away"), "CONNECTED")
    await agent.fault("away", "drop", 600)

    async def missing() -> set[str]:
        text = await agent.do("GET", "/metrics")
        return named - {re.split(r"[{ ]", line)[0] for line in text.splitlines()}

    await eventually(missing, set())
    # The same agent, looked at by the doctor: nothing is wrong with it.
    where = ("--config", str(agent.config), "--state", str(agent.state))
    status, said = await run_program(agent, "doctor", *where, "--json")
    found = {one["check"]: one for one in json.loads(said)["findings"]}
    assert status == 0, said
    assert found["database"]["sentence"] == "whole"
    assert found["limits"]["sentence"].startswith("the agent may open")
    assert found["agent"]["sentence"].endswith("2 instances")


StartPack = Callable[[RunningAgent, Path, int], Awaitable[str]]


@pytest.fixture
def start_pack(receiver: Receiver, start_server: StartServer) -> StartPack:
    async def start(agent: RunningAgent, folder: Path, port: int) -> str:
        return await start_servers(agent, receiver, start_server, folder, port)

    return start


@pytest.mark.slow
async def test_a_backend_that_is_down_speaks_for_its_sessions_and_for_no_other(
    make_agent: Callable[..., RunningAgent],
    standin: StandIn,
    start_pack: StartPack,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    port = free_port()
    drill = '[alerts]\npatience = 0.01\nmachine = "shop-1"\nresponse_time = 0.05\n'
    drill += f'alertmanager = "http://127.0.0.1:{port}"\n'
    for name in ("line-1", "line-2"):
        standin.add(name, "open")
    patient = SETTINGS.replace("interval = 1\ntimeout = 0.5", "interval = 4\ntimeout = 4")
    patient = patient.replace("watchdog = 1.0", "watchdog = 20")
    agent = make_agent(drill + table(standin), base=patient)
    agent.listen = f"127.0.0.1:{free_port()}"
    await agent.start(IMPATIENT)
    await agent.create("local")
    for id in ("local", "line-1", "line-2"):
        await eventually(lambda id=id: agent.knows(id), within=30)
        await eventually(lambda id=id: agent.status(id), "CONNECTED", within=30)
    prometheus = await start_pack(agent, tmp_path / "pack", port)

    async def raised(name: str) -> dict[str, list[dict[str, Any]]]:
        """By session or backend: what Alertmanager says of Prometheus' alert and of the agent's."""
        text = await fetch(f"http://127.0.0.1:{port}/api/v2/alerts?active=true")
        found: dict[str, list[dict[str, Any]]] = {}
        for one in json.loads(text or "[]"):
            labels = one["labels"]
            if labels["alertname"] == name:
                about = labels.get("session") or labels.get("backend", "")
                found.setdefault(about, []).append(one)
        return {about: both for about, both in found.items() if len(both) == 2}

    async def until_raised(name: str, wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
        async def look() -> dict[str, list[dict[str, Any]]]:
            found = await raised(name)
            return found if set(found) == wanted else {}

        found: dict[str, list[dict[str, Any]]] = await eventually(look, within=60)
        return found

    # All three answer slowly, each says so; nothing else speaks for them.
    await standin.front.set("slow", 0.2)
    await agent.fault("local", "slow", 3600)
    slow = await until_raised("WaSessionResponseSlow", {"local", "line-1", "line-2"})
    assert {one["labels"].get("backend") for one in slow["local"]} == {None}
    assert {one["labels"].get("backend") for one in slow["line-1"]} == {"evo"}
    assert not _inhibited(slow)

    # The server goes: it speaks for its own, the local one speaks on.
    await standin.front.set("refuse")
    await until_raised("WaBackendDown", {"evo"})

    async def silenced() -> set[str]:
        return _inhibited(await raised("WaSessionResponseSlow"))

    await eventually(silenced, {"line-1", "line-2"}, within=60)
    assert await raised("WaSessionDown") == {}, "nothing is said of sessions that cannot be asked"
    text = await eventually(lambda: fetch(f"{prometheus}/api/v1/alerts"))
    told = {one["labels"]["alertname"] for one in json.loads(text)["data"]["alerts"]}
    assert "WaSessionDown" not in told
    board = {one["name"]: one for one in (await agent.do("GET", "/api/alerts"))["alerts"]}
    assert "WaSessionDown" not in board
    summary = board["WaBackendDown"]["sentence"]
    assert summary == (
        "the backend evo cannot be used; the state of its sessions is unknown: unreachable"
    )
    down = (await until_raised("WaBackendDown", {"evo"}))["evo"]
    assert {one["annotations"]["summary"] for one in down} == {summary}

    # And is back.
    await standin.front.set("")
    await eventually(lambda: agent.status("line-1"), "CONNECTED", within=30)
    await eventually(lambda: raised("WaBackendDown"), {}, within=60)


def _inhibited(found: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Those of which neither Prometheus' nor the agent's own alert is told."""
    return {
        about for about, both in found.items() if all(one["status"]["inhibitedBy"] for one in both)
    }


async def start_servers(
    agent: RunningAgent,
    receiver: Receiver,
    start_server: StartServer,
    folder: Path,
    alertmanager_port: int,
) -> str:
    """Export, fill in the addresses, start both; return Prometheus' address."""
    key = await agent.do("POST", "/api/keys", {"name": "prometheus", "scopes": ["read"]})
    folder.mkdir()
    key_file, prometheus_port = folder / "prometheus.key", free_port()
    key_file.write_text(key["token"])
    exporting = ("alerts", "export", str(folder), "--config", str(agent.config))
    where = ("--listen", agent.listen, "--key-file", str(key_file))
    status, said = await run_program(agent, *exporting, *where)
    assert status == 0, said
    example = (folder / "alertmanager.example.yml").read_text()
    for ours, theirs in (
        ("http://127.0.0.1:9099", receiver.url),
        ("https://chat.example.com/hooks/replace-me", f"{receiver.url}/chat"),
        ("localhost:25", receiver.mail.address),
    ):
        assert ours in example
        example = example.replace(ours, theirs)
    (folder / "alertmanager.yml").write_text(example)
    await start_server(
        "prometheus-alertmanager",
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/alertmanager",
        f"--web.listen-address=127.0.0.1:{alertmanager_port}",
        "--cluster.listen-address=",
    )
    await start_server(
        "prometheus",
        f"--config.file={folder}/prometheus.example.yml",
        f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address=127.0.0.1:{prometheus_port}",
        "--log.level=warn",
    )
    return f"http://127.0.0.1:{prometheus_port}"


@pytest.mark.slow
async def test_a_fault_is_notified_and_its_repair_too(
    make_agent: Callable[..., RunningAgent],
    receiver: Receiver,
    start_server: StartServer,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    port = free_port()
    drill = f'[alerts]\npatience = 0.01\nalertmanager = "http://127.0.0.1:{port}"\n'
    agent = make_agent(drill + 'machine = "shop-1"\n')
    agent.listen = f"127.0.0.1:{free_port()}"
    await agent.start(IMPATIENT)
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    prometheus = await start_servers(agent, receiver, start_server, tmp_path / "pack", port)

    async def is_scraped() -> bool:
        text = await fetch(f"{prometheus}/api/v1/query?query=wa_session_wanted")
        return bool(text) and bool(json.loads(text)["data"]["result"])

    await eventually(is_scraped, within=30)
    await eventually(lambda: receiver.heartbeats > 0, within=30)

    # the network goes, and stays away
    await agent.fault("sales", "drop", 3600)
    await eventually(lambda: receiver.all_about("WaSessionDown", "firing"), within=60)
    theirs, own = receiver.all_about("WaSessionDown", "firing")
    assert theirs["labels"].items() >= {
        ("session", "sales"),
        ("machine", "shop-1"),
        ("engine", "sandbox"),
    }
    assert theirs["annotations"] == own["annotations"]
    assert "`wa-agent why sales`" in own["annotations"].pop("description")
    assert own["annotations"] == {
        "summary": "sales should be connected and is not: unreachable",
        "runbook": "wa-agent alerts explain WaSessionDown",
    }
    status, said = await run_program(agent, "alerts", "explain", "WaSessionDown")
    assert status == 0
    assert "WaSessionDown" in said
    sentence = "sales should be connected and is not"
    await eventually(lambda: receiver.mail.about("Subject: [FIRING", sentence), within=30)
    status, said = await run_program(agent, "alerts")
    assert status == 1
    assert re.search(r"firing +warning +WaSessionDown .* sales should be connected", said), said
    line = ("alert", "WaSessionDown: sales should be connected and is not: unreachable")

    async def told_to_its_story() -> bool:
        return line in await agent.story("sales")

    await eventually(told_to_its_story)

    # and is back
    await agent.clear("sales", within=30)
    status, said = await run_program(agent, "recover", "sales")
    assert status == 0, said
    await eventually(lambda: agent.status("sales"), "CONNECTED", within=30)
    await eventually(lambda: receiver.all_about("WaSessionDown", "resolved"), within=60)
    await eventually(lambda: receiver.mail.about("[RESOLVED]", sentence), within=30)

    async def over() -> bool:
        told = [sentence for kind, sentence in await agent.story("sales") if kind == "alert_over"]
        return any(one.startswith("WaSessionDown is over for sales, after ") for one in told)

    await eventually(over)
    status, said = await run_program(agent, "alerts", "--json")
    assert "WaSessionDown" not in {one["name"] for one in json.loads(said)["alerts"]}
