"""`scripts/chaos evolution`: where it cannot run it says why, and its proxy meddles as it says."""

from pathlib import Path

import aiohttp
import pytest

from scripts.real_evolution.__main__ import main
from scripts.real_evolution.proxy import Proxy
from scripts.real_evolution.server import RealServer, why_not
from tests.standin.evolution import KEY, StandIn

STATE = "/instance/connectionState/shop"
SETTINGS = "SERVER:\n  PORT: 8080 # 443\nAUTHENTICATION:\n  API_KEY:\n    KEY: of-the-source\n"


def source(folder: Path, version: str = "1.8.6", line: str = "process.env.WA_URL") -> Path:
    (folder / "node_modules/baileys").mkdir(parents=True)
    (folder / "src/api").mkdir(parents=True)
    (folder / "package.json").write_text(f'{{"version": "{version}"}}')
    (folder / "src/api/session.ts").write_text(line)
    (folder / "src/env.yml").write_text(SETTINGS)
    return folder


def test_without_a_server_it_says_why_and_leaves_the_walk_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--server", str(tmp_path)]) == 0
    assert f"left out: {tmp_path} holds no Evolution API" in capsys.readouterr().err
    assert "holds Evolution API 3.0.0" in why_not(source(tmp_path / "newer", "3.0.0"))
    assert "process.env.WA_URL" in why_not(source(tmp_path / "as-published", line=""))


def test_the_server_runs_in_a_copy_with_a_port_and_a_key_of_its_own(tmp_path: Path) -> None:
    given = source(tmp_path / "given")
    (given / "instances/of-before").mkdir(parents=True)
    server = RealServer(given, tmp_path / "copy", "ws://127.0.0.1:1/ws/chat", tmp_path)
    settings = (tmp_path / "copy/src/env.yml").read_text()
    assert f"  PORT: {server.port}\n" in settings and "of-the-source" not in settings
    assert (given / "src/env.yml").read_text() == SETTINGS
    assert list((tmp_path / "copy/instances").iterdir()) == []
    assert (tmp_path / "copy/node_modules/baileys").is_dir()


async def test_the_proxy_carries_delays_and_spoils() -> None:
    server = await StandIn.open("1.8.6")
    server.add("shop", "open")
    proxy = await Proxy.open(server.front.port)
    client = aiohttp.ClientSession(headers={"apikey": KEY})
    try:
        async with client.get(proxy.url + STATE) as answer:
            assert (await answer.json())["instance"]["state"] == "open"
        await proxy.front.set("failing")
        async with client.get(proxy.url + STATE) as answer:
            assert answer.status == 502
        await proxy.front.set("half")
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get(proxy.url + STATE) as answer:
                await answer.read()
        await proxy.front.set("slow", 60.0, "/instance/connect/")
        async with client.get(proxy.url + STATE) as answer:
            assert answer.status == 200, "only GET connect is late"
        assert [line for _, line in proxy.asked] == [f"GET {STATE}"] * 4
    finally:
        await client.close()
        await proxy.close()
        await server.close()
