"""[fleet] of agent.toml."""

from pathlib import Path
from unittest.mock import patch

import pytest

from agent.config.load import changes_that_need_restart, load_config
from agent.errors import ConfigError
from agent.fleet.settings import FleetSettings, fleet_of


def load(tmp_path: Path, text: str) -> FleetSettings:
    (path := tmp_path / "agent.toml").write_text(f"[fleet]\n{text}\n")
    config = load_config(path, {})
    plain = fleet_of(load_config(None, {})) == fleet_of(config)
    assert bool(changes_that_need_restart(load_config(None, {}), config)) is not plain
    return fleet_of(config)


def test_a_fleet_has_a_store_a_name_and_an_address(tmp_path: Path) -> None:
    assert not (bare := load(tmp_path, "")).store
    members = '["https://etcd.example:2379", "http://10.0.0.1:2379", "http://[::1]:2379"]'
    found = load(tmp_path, f'store = {members}\nname = "shop/a"\naddress = "10.0.0.1:8470"')
    assert (len(found.store), found.names) == (3, ("shop", "a"))
    assert (load(tmp_path, 'name = "a"').names, bare.names[0]) == (("fleet", "a"), "fleet")
    with patch("socket.gethostname", lambda: "-"), pytest.raises(ConfigError, match="host's name"):
        _ = FleetSettings().names


BAD = {
    "store": ("http://8.8.8.8:1", "http://etcd.example:2379", "https://a:1/path", "10.0.0.1:2379"),
    "name": ("A", "a/b/c", "a/"),
    "address": ("10.0.0.1", "0.0.0.0:8470", "10.0.0.1:0"),
}


@pytest.mark.parametrize(("key", "bad"), [(key, it) for key, its in BAD.items() for it in its])
def test_what_no_machine_could_use_is_refused(tmp_path: Path, key: str, bad: str) -> None:
    with pytest.raises(ConfigError, check=lambda it: it.field == f"fleet.{key}"):
        load(tmp_path, f'{key} = ["{bad}"]' if key == "store" else f'{key} = "{bad}"')
