"""A remote engine is its package and one line in the catalog: no other file knows its name."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import RunningAgent, remote_settings
from tests.worker.backend.loop.server import LoopServer

ROOT = Path(__file__).parents[2]
LINE = """
from agent.engines.catalog import CATALOG, EngineEntry
CATALOG["toy"] = EngineEntry("toy", "sessions on a toy server", "tests.engines.toy", remote=True)
"""
BACKEND = """
[[backend]]
name = "shelf"
engine = "toy"
url = "http://127.0.0.1:{port}"
port = {port}
colour = "blue"
adopt = ["*"]
"""


@pytest.fixture
def with_toy(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python whose catalog has the line, workers' included."""
    (tmp_path / "line").mkdir()
    (tmp_path / "line" / "sitecustomize.py").write_text(LINE)
    return {**os.environ, "PYTHONPATH": f"{tmp_path / 'line'}:{ROOT}"}


@pytest.fixture
async def server() -> AsyncIterator[LoopServer]:
    server = await LoopServer().open()
    yield server
    await server.close()


async def run(env: dict[str, str], *arguments: str | Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *map(str, arguments)),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_new_engine_is_checked_and_has_its_settings_in_the_example(
    with_toy: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(BACKEND.format(port=1))
    assert (await run(with_toy, "config", "check", "--config", file))[0] == 0
    for change, word in (("port = 0", "a toy needs a port"), ("colour = 'green'", "red, blue")):
        key = change.partition(" ")[0]
        lines = [line for line in file.read_text().splitlines() if not line.startswith(key)]
        wrong = tmp_path / "wrong.toml"
        wrong.write_text("\n".join([*lines, change]))
        status, said = await run(with_toy, "config", "check", "--config", wrong)
        assert (status, word in said, f"backend[0].{key}" in said) == (78, True, True), said
    made = tmp_path / "made.toml"
    assert (await run(with_toy, "config", "init", "--config", made))[0] == 0
    assert '# colour of the toy (red | blue)\n# colour = "red"' in made.read_text()


async def test_sessions_of_a_new_engine_run_and_are_shown_everywhere(
    with_toy: dict[str, str],
    server: LoopServer,
    make_agent: Callable[..., RunningAgent],
    eventually: Callable[..., object],
) -> None:
    server.states["box"] = "CONNECTED"
    agent = make_agent(BACKEND.format(port=server.port), base=remote_settings())
    await agent.start(with_toy)

    async def connected() -> str:
        return await agent.status("box") if await agent.knows("box") else ""

    await eventually(connected, "CONNECTED")  # type: ignore[misc]
    engines = (await agent.do("GET", "/api/engines"))["engines"]
    (toy,) = [engine for engine in engines if engine["name"] == "toy"]
    assert (toy["about"], toy["remote"]) == ("sessions on a toy server", True)
    assert [setting["name"] for setting in toy["settings"]] == ["port", "colour"]
    body = (await agent.do("GET", "/openapi.json"))["paths"]["/api/instance"]["post"]
    schema = body["requestBody"]["content"]["application/json"]["schema"]
    assert "toy" in schema["properties"]["engine"]["enum"]

    at = ("--socket", agent.state / "api.sock")
    status, said = await run(with_toy, *("doctor", "--config", agent.config, *at))
    assert "backend shelf" in said and "toy" in said, said
    status, said = await run(with_toy, *("list", "--engine", "toy", *at))
    assert (status, "box" in said) == (0, True), said
    status, said = await run(
        with_toy, *("create", "more", "--engine", "toy", "--backend", "shelf", *at)
    )
    assert status == 0, said
    assert (await agent.show("more"))["engine"] == "toy"
