"""A machine joins with its plan: what it writes, where, and as which user."""

import asyncio
import io
import os
import pwd
import stat
import tarfile
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock, patch

import pytest

from agent.cli.client import Installation
from agent.cli.command import run
from agent.config.load import changes_that_need_restart, load_config
from agent.errors import ConfigError, HostError, InvalidRequest, Refused, WaError
from agent.fleet import commands, join, plan
from agent.fleet.settings import FleetSettings, fleet_of
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, cli, make_agent
from tests.lacking import not_lent
from tests.vault.conftest import open_root

__all__ = ["make_agent", "open_root"]

EXAMPLE = (Path(__file__).parents[2] / "agent.toml.example").read_text()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    plan.plan("shops", {"a": "198.51.100.1", "b": "127.0.0.2"}, tmp_path)
    return (tmp_path / "plan-b.tar").read_bytes()


def machine(tmp_path: Path, text: str) -> tuple[Path, Path]:
    config, state = tmp_path / "agent.toml", tmp_path / "state"
    config.write_text(f"# mine\n{text}")
    config.chmod(0o640)
    state.mkdir(mode=0o700, exist_ok=True)
    return config, state


TEXTS = EXAMPLE, "", '[fleet]  # of shops\nname = "shops/b"\n[api]', "[ fleet ]\n[api]\n"


@pytest.mark.parametrize("text", TEXTS)
def test_a_machine_has_its_keys_and_its_table_once(
    tmp_path: Path, content: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = machine(tmp_path, text)
    before = config.read_text()
    command = ["fleet", "join", str(tmp_path / "plan-b.tar"), "--config", str(config)]
    monkeypatch.setenv("WA_AGENT_AGENT__STATE_PATH", str(state))
    assert [run(command), run(command)] == [0, 0]
    fleet = tomllib.loads(config.read_text())["fleet"]
    assert (fleet["name"], fleet["address"]) == ("shops/b", "127.0.0.2:8475")
    assert config.stat().st_mode & 0o777 == 0o640
    assert {*before.splitlines()} <= {*config.read_text().splitlines()}, "all else is kept"
    for name in plan.KEYS:
        assert stat.S_IMODE((state / "fleet" / name).stat().st_mode) == 0o600
    assert (state / "fleet/fleet.key").read_bytes() == plan.unpack(content)["fleet.key"]
    # One member of its etcd was replaced.
    older = config.read_text().replace("198.51.100.1", "1.9")
    config.write_text(older)
    found = [[join.etcd.Member("1", peers=[f"https://{it}:2380"])] for it in ("1.9", "127.0.0.2")]
    etcd = AsyncMock(**{"members.side_effect": [join.etcd.StoreAway("x"), *found]})
    monkeypatch.setattr(join.etcd, "Etcd", lambda *_: etcd)
    for cause in ("start it, or take out an old", r"etcd has https://1\.9:2380 as a new member"):
        with pytest.raises(WaError, match=cause):
            join.join(content, config, state, member=False)
    assert run(command) == 0, "etcd is as its plan says"
    config.write_text(older)  # and etcd is not asked a fourth time
    (state / "fleet/ca.pem").write_bytes(b"of another fleet")
    with pytest.raises(Refused, match="of another"), patch.object(join, "install_member", None):
        join.join(content, config, state, member=True)
    with pytest.raises(Refused, match=r"plan of a: 198\.51\.100\.1 is no address of this machine"):
        join.join((tmp_path / "plan-a.tar").read_bytes(), config, state, member=False)


def test_the_doctor_names_what_keys_and_agent_lack(tmp_path: Path, content: bytes) -> None:
    config, state = machine(tmp_path, f'[agent]\nstate_path = "{tmp_path}/state"\n')
    join.join(content, config, state, member=False)
    config.write_text(config.read_text().replace("127.0.0.2", "10.0.0.2"))
    trouble = {"machine": "m", "id": "", "cause": "lost"}
    found = {"machines": [{"address": "10.0.0.1:1"}], "troubles": [trouble], "notes": ["n"]}

    def said() -> list[str]:
        here = Installation(load_config(config, {}), SimpleNamespace(get=lambda _: found), config)
        return [it.sentence.rpartition("/")[2] for it in commands.examine(here)]

    assert said() == ["m: lost", "n"]
    (state / "fleet/machine.key").chmod(0o640)
    (state / "fleet/ca.pem").unlink()
    bad = ["ca.pem is missing: no copies are made", "machine.key is open to others"]
    assert said() == [*bad, "m: lost", "n"]


def test_a_machine_of_another_fleet_is_refused(tmp_path: Path, content: bytes) -> None:
    for text, cause in (
        ('[fleet]\nname = "shops/c"\n', "another .fleet. name"),
        ('[fleet]\nname = "shops/b"\nstore = ["https://1.9:2379"]\n', "another .fleet. store"),
        ('fleet.name = "shops/b"\n', "write these lines"),
        ('x = """\n[fleet]\n"""\n[fleet]\n', "write these lines"),
    ):
        config, state = machine(tmp_path, text)
        with pytest.raises(Refused, match=cause):
            join.join(content, config, state, member=False)
        assert not [*state.iterdir()]


def test_what_is_no_plan_is_refused(content: bytes) -> None:
    def packed(name: str, type: bytes, size: int = 0) -> bytes:
        made = io.BytesIO(content)
        with tarfile.open(fileobj=made, mode="a") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = type, "/etc/passwd", size
            archive.addfile(member, io.BytesIO(b"x" * size))
        return made.getvalue()

    for bad in (
        *(b"", b"x" * 2000, content[:3000], content[:-9000]),
        *(packed("../ca.pem", tarfile.REGTYPE), packed("fleet.key", tarfile.SYMTYPE)),
        *(packed("etcd", tarfile.REGTYPE, 4), packed("ca.pem", tarfile.FIFOTYPE)),
        packed("fleet.key", tarfile.REGTYPE, 2 << 20),
    ):
        with pytest.raises(InvalidRequest, match="cannot use this plan"):
            plan.unpack(bad)


@pytest.mark.parametrize("planted", ["folder", "files"])
def test_root_writes_through_no_link_of_the_agents_user(
    open_root: Path, content: bytes, planted: str
) -> None:
    if os.geteuid() != 0:
        not_lent("needs root, who alone may follow such a link")
    config, state = machine(open_root, "")
    user, victim = pwd.getpwnam("nobody"), open_root / "victim"
    victim.mkdir(mode=0o755)
    for name in plan.KEYS:
        (victim / name).write_text("root's")
    if planted == "folder":
        (state / "fleet").symlink_to(victim)
    else:
        (state / "fleet").mkdir()
        for name in plan.KEYS:
            (state / "fleet" / name).symlink_to(victim / name)
    for path in (state, *state.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    if planted == "folder":
        with pytest.raises(HostError):
            join.join(content, config, state, member=False)
        assert config.read_text() == "# mine\n", "it is in no fleet"
    else:
        join.join(content, config, state, member=False)
        key = (state / "fleet/fleet.key").lstat()
        assert (stat.S_ISREG(key.st_mode), key.st_uid) == (True, user.pw_uid)
    assert {(it.read_text(), it.stat().st_uid) for it in victim.iterdir()} == {("root's", 0)}


def test_etcd_of_the_machine_is_the_planned_member_or_left_alone(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, ran = plan.unpack(content), Mock(return_value=SimpleNamespace(returncode=0))
    files["etcd"] = files["etcd"].replace(b"/var/lib/etcd", str(tmp_path).encode())
    settings, group = tmp_path / "default", os.getegid()
    monkeypatch.setattr(join, "SETTINGS", settings)
    monkeypatch.setattr(join, "ETCD", str(tmp_path / "certificates"))
    monkeypatch.setattr(join, "_holds_keys", lambda: False)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: SimpleNamespace(pw_gid=group))
    monkeypatch.setattr(plan.subprocess, "run", ran)
    settings.write_text("# of Debian\nETCD_NAME=other\n")
    with pytest.raises(Refused, match=f"; mv {settings} /root; rm -rf {tmp_path}/wa-agent"):
        join.install_member(files)
    settings.write_text("# of Debian\n")
    (tmp_path / "wa-agent").mkdir()
    with pytest.raises(Refused, match="earlier life"):
        join.install_member(files)
    assert not ran.called
    (tmp_path / "wa-agent").rmdir()
    join.install_member(files)
    (tmp_path / "wa-agent").mkdir()
    join.install_member(files)
    assert " ".join(it.args[0][1] for it in ran.mock_calls) == "enable restart -c enable start -c"
    ran.side_effect = lambda it, **_: SimpleNamespace(returncode=it[0] == "sh", stderr="failed\n")
    with pytest.raises(HostError, match=r"cannot start etcd.*or join with --no-store.*: failed"):
        join.install_member(files)
    assert settings.read_text() == "# of Debian\n" + files["etcd"].decode()
    key = (tmp_path / "certificates/machine.key").stat()
    assert (stat.S_IMODE(key.st_mode), key.st_gid) == (0o640, group)


async def test_a_clone_becomes_an_empty_machine(
    make_agent: Callable[..., RunningAgent], eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = make_agent('[fleet] # mine\nname = "shops/a"\naddress = "10.0.0.1:8475"\n')
    monkeypatch.setenv("WA_AGENT_AGENT__STATE_PATH", str(clone.state))
    command = ("fleet", "rename", "c=10.0.0.9", "--config", clone.config)
    assert (await cli(clone, *command))[0] == 4, "it is not confirmed"
    assert "10.0.0.9 is no address of this" in (await cli(clone, *command, "--yes"))[1]
    config = load_config(clone.config, os.environ)
    rename = partial(asyncio.to_thread, join.rename, "c", "127.0.0.9", clone.config, config)
    await clone.start()
    await clone.create("s")
    await eventually(lambda: clone.status("s"), "CONNECTED")
    (clone.state / "fleet").mkdir()
    (clone.state / "fleet/agent.json").touch()
    with pytest.raises(WaError, match="another agent runs on it"):
        await rename()
    await clone.kill()
    with pytest.raises(Refused, match="the worker of s runs"):
        await rename()
    await clone.start()
    await clone.stop()
    assert [await rename() for _ in range(2)] == ["shops/c"] * 2
    assert "[fleet] # mine" in (text := clone.config.read_text())
    assert tomllib.loads(text)["fleet"] == {"name": "shops/c", "address": "127.0.0.9:8475"}
    assert not (clone.state / "fleet/agent.json").exists()
    await clone.start()
    assert (await clone.do("GET", "/api/instances"))["instances"] == []
    assert [it["id"] for it in (await clone.do("GET", "/api/trash"))["trash"]] == ["s"]


# [fleet] of agent.toml.


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
