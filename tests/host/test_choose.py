"""Which host is taken, and what is said when it cannot be."""

import pytest

from agent.config.config import AgentSection, Config
from agent.errors import HostError
from agent.host import choose, units


async def opened(kind, tmp_path, root=None):
    agent = AgentSection(tmp_path, str(root or tmp_path / "sessions"))
    host = await choose.open_host(kind, Config(agent), lambda _: None)
    await host.close(leave_workers=True)
    return host.name


async def test_without_systemd_workers_are_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "BOOTED_BY_SYSTEMD", tmp_path / "absent")
    assert await opened("auto", tmp_path) == "process"


async def test_a_checkout_beside_an_installation_leaves_its_units_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "BOOTED_BY_SYSTEMD", tmp_path)
    monkeypatch.setattr(units, "template_installed", lambda _kind: True)
    assert await opened("auto", tmp_path) == "process"


async def test_an_installation_never_falls_back_beside_its_own_units(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "BOOTED_BY_SYSTEMD", tmp_path)
    monkeypatch.setattr(units, "template_installed", lambda _kind: True)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    with pytest.raises(HostError, match="cannot connect to the system bus"):
        await opened("auto", tmp_path, units.INSTANCES.installed)


async def test_asking_for_systemd_where_it_is_not_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "BOOTED_BY_SYSTEMD", tmp_path)
    monkeypatch.setattr(units, "template_installed", lambda _kind: False)
    with pytest.raises(HostError, match="not installed"):
        await opened("systemd", tmp_path)
