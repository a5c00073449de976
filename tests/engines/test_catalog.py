"""Engines are found by name and imported only then."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.engines.catalog import CATALOG, check_settings, file_rules, load_engine, needed_address
from agent.errors import ConfigError


@pytest.mark.parametrize("name", [entry.name for entry in CATALOG.values() if not entry.remote])
def test_f42_every_engine_says_when_a_folder_can_hold_no_pairing(name: str, tmp_path: Path) -> None:
    lost_store = file_rules(name).lost_store
    assert lost_store(tmp_path)
    assert lost_store(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../sandbox", "x" * 999])
def test_an_unknown_engine_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"known are: .*sandbox") as caught:
        load_engine(name)
    assert caught.value.code == "unknown_engine" and caught.value.exit_status == 78
    assert len(str(caught.value)) < 1000


def test_an_engine_whose_libraries_are_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "agent.engines.sandbox.engine", None)
    with pytest.raises(ConfigError) as caught:
        load_engine("sandbox")
    assert caught.value.code == "engine_not_installed"


@pytest.mark.parametrize("remote", ["a\nb", "x" * 201])
def test_the_name_at_a_server_is_one_line(remote: str) -> None:
    with pytest.raises(ConfigError):
        check_settings("evolution", {"backend": "evo", "remote": remote})


def test_the_catalog_imports_no_engine() -> None:
    code = "import sys, agent.engines.catalog; print([m for m in sys.modules if 'engines.' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    for name in CATALOG:
        assert f"agent.engines.{name}'".encode() not in found


def test_the_name_of_an_address_has_no_password_of_its_proxy():
    address = needed_address("baileys", {"proxy": "http://till:hidden@proxy:3128"}, Path("/none"))
    assert address is not None
    assert address.name.endswith(" through proxy:3128")


@pytest.mark.parametrize(
    ("engine", "settings", "url", "proxy"),
    [
        ("web", {}, "https://web.whatsapp.com/", ""),
        ("web", {"url": "http://127.0.0.1:8/x?name=a", "name": "A"}, "http://127.0.0.1:8/", ""),
        ("web", {"proxy": "socks5://p:1"}, "https://web.whatsapp.com/", "socks5://p:1"),
        ("sandbox", {}, "file:///s/a/session/network", ""),
    ],
)
def test_every_local_engine_names_the_address_that_it_needs(engine, settings, url, proxy):
    found = needed_address(engine, settings, Path("/s/a/session"))
    assert found is not None
    assert (found.url, found.proxy) == (url, proxy)
