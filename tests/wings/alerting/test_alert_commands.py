"""`wa-agent alerts`: what is active, and files that are whole and keep what was changed."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.config.sections import ApiSection
from agent.metrics.exporter import Exporter
from tests.api.conftest import House, serve_fakes
from tests.cli.conftest import Cli
from tests.fakes.supervisor import FakeKeys, FakeSupervisor
from tests.ports import free_port
from tests.wings.alerting.a_board import a_board


@pytest.fixture
async def alarmed(tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of an agent that has something to say."""
    supervisor, path = FakeSupervisor(), tmp_path / "alarmed.sock"
    exporter = Exporter(supervisor.views, supervisor.status, tmp_path)
    server = await serve_fakes(
        ApiSection(listen=""), supervisor, FakeKeys(), exporter, path, board=a_board
    )
    yield path
    await server.close()


async def test_active_alerts_are_listed_and_set_the_exit_status(alarmed: Path, cli: Cli) -> None:
    said = await cli("alerts", "--socket", alarmed)
    assert said.status == 1
    lines = said.out.splitlines()
    assert lines[0].split() == ["STATE", "SEVERITY", "ALERT", "SINCE", "WHAT"]
    assert re.match(
        r"firing +critical +WaBackendDown +\S+ \S+ .*the backend evo cannot be used", lines[1]
    )
    assert lines[2].startswith("under WaBackendDown")
    assert re.match(r"pending +warning +WaSessionNeedsScan", lines[3])
    assert lines[4] == "runbook: wa-agent alerts explain WaBackendDown"
    assert lines[5] == "the Alertmanager takes no alerts: it answered 503"
    assert len(lines) == 6
    everything = await cli("alerts", "--all", "--socket", alarmed)
    assert re.search(r"resolved +warning +WaHostCpuHigh", everything.out)


async def test_as_json_the_switch_is_there_too(alarmed: Path, cli: Cli) -> None:
    found = (await cli("alerts", "--json", "--socket", alarmed)).json()
    assert {one["name"] for one in found["alerts"]} == {
        "WaDeadMansSwitch",
        "WaBackendDown",
        "WaSessionDown",
        "WaSessionNeedsScan",
    }


async def test_advice_is_printed_without_an_agent(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WA_AGENT_SOCKET", "/nowhere/api.sock")
    said = await cli("alerts", "explain", "wasessiondown")
    assert said.status == 0
    assert said.out.startswith("WaSessionDown (warning)\nAn enabled session was not")
    assert max(map(len, said.out.splitlines())) <= 100
    found = (await cli("alerts", "explain", "WaSessionDown", "--json")).json()
    assert "wa-agent why ID" in found["what_to_do"]
    assert (await cli("alerts", "explain", "WaNothing")).status == 3


async def test_nothing_active_is_good(house: House, cli: Cli) -> None:
    said = await cli("alerts")
    assert (said.status, said.out) == (0, "no alert is active\n")


async def test_the_files_hold_this_machines_numbers(cli: Cli, elsewhere: Path) -> None:
    (elsewhere / "agent.toml").write_text(
        '[api]\nlisten = "10.0.0.7:8470"\n[memory]\nwarn = 0.71\n'
        '[alerts]\nmachine = "shop-1"\nhost_cpu = 0.83\noff = ["WaSessionSilent"]\n'
        'alertmanager = "http://10.0.0.9:9093"\nrunbooks = "https://wiki.example/alerts"\n'
    )
    said = await cli("alerts", "export", "pack", "--config", "agent.toml", "--json")
    assert said.status == 0, said
    names = {Path(path).name for path in said.json()["written"]}
    assert names == {
        "wa-agent.rules.yml",
        "prometheus.example.yml",
        "alertmanager.example.yml",
        "grafana-dashboard.json",
    }
    rules = Path("pack/wa-agent.rules.yml").read_text()
    assert "last_over_time(wa_host_cpu_usage_ratio[4m]) > 0.83" in rules
    assert "> 0.71" in rules
    assert "WaSessionSilent" not in rules
    assert "https://wiki.example/alerts#wasessiondown" in rules
    prometheus = Path("pack/prometheus.example.yml").read_text()
    for part in ('"10.0.0.7:8470"', '"10.0.0.9:9093"', 'machine: "shop-1"'):
        assert part in prometheus
    assert json.loads(Path("pack/grafana-dashboard.json").read_text())["uid"] == "wa-agent"
    assert not list(Path("pack").glob(".*"))


async def test_an_example_that_was_changed_by_hand_is_kept(cli: Cli, elsewhere: Path) -> None:
    await cli("alerts", "export", "pack")
    for name in ("alertmanager.example.yml", "wa-agent.rules.yml"):
        Path("pack", name).write_text("mine")
    said = await cli("alerts", "export", "pack", "--speed-up", "60")
    assert Path("pack/alertmanager.example.yml").read_text() == "mine"
    assert (
        "pack/alertmanager.example.yml kept as it is; --force replaces it" in said.out.splitlines()
    )
    assert "for: 5s" in Path("pack/wa-agent.rules.yml").read_text()
    await cli("alerts", "export", "pack", "--force")
    assert Path("pack/alertmanager.example.yml").read_text() != "mine"


async def test_prometheus_can_read_what_was_exported_with_a_strict_umask(
    cli: Cli, elsewhere: Path
) -> None:
    before = os.umask(0o077)
    try:
        await cli("alerts", "export", "pack")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in Path("pack").iterdir()} == {0o644}


def notification(status: str, **more: Any) -> dict[str, Any]:
    """As Alertmanager posts it."""
    one = {
        "status": status,
        "labels": {"alertname": "WaSessionDown", "severity": "warning", "session": "sales"},
        "annotations": {"summary": "sales should be\x1b[2J connected", "runbook": "http://x/#a"},
        "startsAt": "2026-01-15T10:30:45.123456789Z",
        "endsAt": "2026-01-15T10:40:45Z" if status == "resolved" else "0001-01-01T00:00:00Z",
    }
    return {"version": "4", "status": status, "alerts": [{**one, **more}]}


async def test_a_listener_prints_each_notification() -> None:
    at = f"127.0.0.1:{free_port()}"
    listener = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "alerts", "listen", "--at", at),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TZ": "UTC"},
    )
    assert listener.stdout is not None
    assert listener.stderr is not None
    assert b"listening at" in await listener.stderr.readline()
    async with aiohttp.ClientSession() as client:
        for body, status in (
            (json.dumps(notification("firing")), 200),
            ("no JSON", 400),
            ("[1]", 400),
            ('{"alerts": [7]}', 200),
            (json.dumps(notification("resolved")), 200),
        ):
            async with client.post(f"http://{at}/alerts", data=body) as answer:
                assert answer.status == status
    listener.send_signal(signal.SIGINT)
    out, trouble = await listener.communicate()
    assert (listener.returncode, trouble) == (0, b"")
    assert out.decode().splitlines() == [
        "2026-01-15 10:30:45  warning  WaSessionDown: sales should be�[2J connected  http://x/#a",
        "2026-01-15 10:40:45  is over  WaSessionDown: sales should be�[2J connected  http://x/#a",
    ]


@pytest.mark.parametrize(
    ("at", "words"), [("x", "not HOST:PORT"), ("192.0.2.1:1", "cannot listen")]
)
async def test_a_listener_that_cannot_listen_says_so(cli: Cli, at: str, words: str) -> None:
    said = await cli("alerts", "listen", "--at", at)
    assert said.status != 0
    assert words in said.err


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("pack", "--speed-up", "0"), 2, "--speed-up"),
        (("pack", "--speed-up", "nan"), 2, "--speed-up"),
        (("agent.toml/pack",), 1, "cannot write into"),
        (("pack", "--config", "bad.toml"), 78, "WaNothing"),
        (("pack", "--config", "foul.toml"), 78, "alerts.alertmanager"),
    ],
)
async def test_rules_that_cannot_be_exported_are_named(
    cli: Cli, elsewhere: Path, argv: tuple[str, ...], status: int, words: str
) -> None:
    (elsewhere / "agent.toml").write_text("")
    (elsewhere / "bad.toml").write_text('[alerts]\noff = ["WaNothing"]\n')
    (elsewhere / "foul.toml").write_text('[alerts]\nalertmanager = "http://a:b@host:9093"\n')
    said = await cli("alerts", "export", *argv)
    assert said.status == status, said
    assert words in said.err


async def test_the_files_name_the_address_that_the_running_agent_listens_on(
    cli: Cli, elsewhere: Path, house: Any
) -> None:
    assert elsewhere.is_dir()
    house.server._parts.places.update({"listen": "10.1.2.3:9999"})
    said = await cli("alerts", "export", "pack", "--json")
    assert said.status == 0, said
    assert '"10.1.2.3:9999"' in Path("pack/prometheus.example.yml").read_text()
    rules = Path("pack/wa-agent.rules.yml").read_text()
    assert "http://10.1.2.3:9999/runbook#wasessiondown" in rules
    named = await cli("alerts", "export", "named", "--listen", "127.0.0.1:8470", "--json")
    assert named.status == 0, named
    rules = Path("named/wa-agent.rules.yml").read_text()
    assert '"127.0.0.1:8470"' in Path("named/prometheus.example.yml").read_text()
    assert "127.0.0.1:8470/runbook" not in rules, "other machines cannot open that page"
    assert "wa-agent alerts explain WaSessionDown" in rules
