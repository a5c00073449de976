"""What Prometheus makes of the time in each status while agents are killed, stopped and started."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.ports import free_port
from tests.trial.system_pack.conftest import StartServer, fetch

EVERY = 1.0
"""Seconds between two scrapes."""
LIVES = ("kill", "stop", "kill")
"""How each agent ends before the next one begins."""
SERIES = 'wa_session_status_seconds_total{session="a"}'


async def ask(prometheus: str, query: str, at: float) -> dict[str, float]:
    """Each status' value."""
    text = await fetch(f"{prometheus}/api/v1/query?query={quote(query)}&time={at}")
    rows = json.loads(text)["data"]["result"] if text else []
    return {row["metric"].get("status", ""): float(row["value"][1]) for row in rows}


async def start_prometheus(agent: RunningAgent, start_server: StartServer, folder: Path) -> str:
    key = await agent.do("POST", "/api/keys", {"name": "prometheus", "scopes": ["read"]})
    folder.mkdir()
    (folder / "key").write_text(key["token"])
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: {EVERY * 1000:g}ms, scrape_timeout: {EVERY * 1000:g}ms}}\n"
        "scrape_configs:\n- job_name: wa-agent\n"
        f"  authorization: {{credentials_file: {folder}/key}}\n"
        f"  static_configs: [{{targets: ['{agent.listen}']}}]\n"
    )
    port = free_port()
    await start_server(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    return f"http://127.0.0.1:{port}"


async def test_o1_the_time_in_a_status_is_true_over_restarts_of_the_agent(
    make_agent: Callable[..., RunningAgent],
    start_server: StartServer,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    agent = make_agent()
    agent.listen = f"127.0.0.1:{free_port()}"
    await agent.start()
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    prometheus = await start_prometheus(agent, start_server, tmp_path / "prometheus")

    async def scraped(since: float, times: int) -> bool:
        now = time.time()
        window = f"count_over_time({SERIES}[{round((now - since) * 1000)}ms])"
        return (await ask(prometheus, window, now)).get("connected", 0) >= times

    async def unseen(at: float) -> float:
        """Seconds between the last scrape before that moment, and it."""
        return at - (await ask(prometheus, f"timestamp({SERIES})", at))["connected"]

    created = time.time()
    await eventually(lambda: scraped(created, 2), within=30)
    begun, away, lost, down = time.time(), 0.0, 0.0, 0.0
    for how in LIVES:
        since = time.time()
        # Long enough that adding a whole life once more could not hide in the tolerance.
        await eventually(lambda since=since: scraped(since, 5), within=60)
        ended = time.time()
        lost += await unseen(ended)
        await (agent.kill() if how == "kill" else agent.stop())
        await agent.start()
        away += time.time() - ended
        await eventually(lambda: agent.status("a"), "CONNECTED")
        down += time.time() - ended
    since = time.time()
    await eventually(lambda: scraped(since, 2), within=30)

    now = time.time()
    spent = await ask(prometheus, f"increase({SERIES}[{round((now - begun) * 1000)}ms])", now)
    counted, passed = spent.pop("connected"), now - begun
    # What passed between the last scrape and an end is lost, and so is what no agent saw.
    least = passed - away - lost - await unseen(now) - 2 * EVERY
    other = sum(spent.values())
    assert least <= counted + other <= passed + EVERY, (counted, passed, away, lost)
    assert other <= down + EVERY, f"it was connected all the other time: {spent}, {down}"
