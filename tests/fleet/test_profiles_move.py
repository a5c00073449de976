"""A browser profile moves from one real agent to another, through a real restic repository."""

import shutil
from pathlib import Path

from tests.conftest import Eventually
from tests.fleet.agents import fleet_of_agents
from tests.fleet.test_profiles import STORE
from tests.lacking import lacks


async def test_an_operator_moves_a_web_session(tmp_path: Path, eventually: Eventually) -> None:
    if shutil.which("restic") is None:
        lacks("restic is not installed")
    cache = str(Path(__file__).parents[2] / ".cache")
    env = {"WA_AGENT_FLEET__PROFILES": str(tmp_path / "repository"), "CACHE_PATH": cache}
    async with fleet_of_agents(["a", "b"], tmp_path, env=env) as fleet:
        await eventually(fleet.know_each_other, within=30)
        body = {"id": "web-1", "engine": "web", "on": "a", "enabled": False}
        await fleet["a"].do("POST", "/api/instance", body)
        store = fleet["a"].state / "sessions" / "web-1" / "session" / STORE
        store.mkdir(parents=True)
        (store / "CURRENT").write_text("MANIFEST-000001\n")
        (store / "MANIFEST-000001").write_bytes(b"m")
        (store.parents[3] / "web.json").write_text('{"paired": true}')
        await fleet["a"].do("POST", "/api/instance/web-1/move", {"to": "b"})
        moved = fleet["b"].state / "sessions" / "web-1" / "session" / STORE
        await eventually((moved / "CURRENT").exists, within=60)
        assert await fleet.owners() == {"web-1": "b"}
        assert (moved / "MANIFEST-000001").read_bytes() == b"m"
        trash = fleet["a"].state / "sessions" / ".trash"
        await eventually(lambda: trash.is_dir() and any(trash.glob("web-1.*")), within=20)
        told = await fleet["b"].do("GET", "/api/instance/web-1/fleet")
        assert (told["machine"], told["epoch"]) == ("b", 1)
