"""[fleet]: what keeps an agent from starting, and what is made of the keys."""

from pathlib import Path

import pytest

from agent.config import Config, load_config, render_config, tables_of, without_secrets
from agent.errors import ConfigError

GOOD = {"database": "postgresql://agent:P-1@db.example/fleet", "listen": "10.0.0.2:8471"}


def read(tmp_path: Path, **keys: object) -> Config:
    path = tmp_path / "agent.toml"
    lines = "".join(f"{key} = {value!r}\n" for key, value in keys.items())
    path.write_text(f"[fleet]\n{lines}")
    return load_config(path, {})


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        pytest.param({"database": "mysql://db/x"}, "postgresql://USER@HOST/NAME", id="no postgres"),
        pytest.param({"database": "postgresql://[::1/x"}, "postgresql://", id="half an address"),
        pytest.param({"database": "postgresql://db/x?password=P-1"}, "into a file", id="password"),
        pytest.param({"listen": ""}, "HOST:PORT", id="no address for the others"),
        pytest.param({"listen": "8.8.8.8:1"}, "without `certificate`", id="plain in the open"),
        pytest.param({"listen": "machine-a:1"}, "without `certificate`", id="plain, by name"),
        pytest.param({"listen": "0.0.0.0:1"}, "without `certificate`", id="plain everywhere"),
        pytest.param({"certificate": "c.pem"}, "belong together", id="no key"),
        pytest.param(
            {"listen": "0.0.0.0:1", "certificate": "c", "certificate_key": "k"},
            "name the address",
            id="all interfaces",
        ),
        pytest.param({"address": "10.0.0.2:8471"}, "https://HOST:PORT", id="no URL"),
        pytest.param({"ttl": 6.0, "margin": 4.0}, "at most half of ttl", id="margin"),
        pytest.param({"ttl": 5.0}, "at least 6", id="ttl"),
        pytest.param({"labels": ["zone"]}, "NAME=VALUE", id="label"),
        pytest.param({"labels": ["a=1", "a=2"]}, "named twice", id="labels"),
        pytest.param({"name": "a b"}, "letters", id="name"),
    ],
)
def test_a_fleet_that_cannot_work_is_refused(
    tmp_path: Path, keys: dict[str, object], cause: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, **GOOD | keys)
    assert cause in str(refused.value)
    assert "P-1" not in str(refused.value)
    assert refused.value.field is not None
    assert refused.value.field.startswith("fleet.")


def test_the_name_labels_and_address_of_this_machine(tmp_path: Path) -> None:
    section = read(tmp_path, **GOOD, name="a", labels=["zone=eu", "disk=ssd"]).fleet
    assert section.machine == "a"
    assert section.label_values == {"zone": "eu", "disk": "ssd"}
    assert section.reached_at == "http://10.0.0.2:8471"
    assert (section.policy.ttl, section.policy.usable) == (20.0, 16.0)


def test_without_a_database_nothing_else_of_the_table_matters(tmp_path: Path) -> None:
    assert not read(tmp_path, listen="8.8.8.8:1", margin=9.0).fleet.database


def test_the_password_of_the_database_is_never_shown(tmp_path: Path) -> None:
    config = read(tmp_path, **GOOD)
    assert "P-1" not in repr(config)
    assert "P-1" not in render_config(without_secrets(config))
    assert "P-1" not in str(tables_of(without_secrets(config)))


def test_the_password_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("S-2\n")
    config = read(tmp_path, **GOOD, database_password_file="secret")
    assert config.fleet.password() == "S-2"
