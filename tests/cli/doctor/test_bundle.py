"""The bundle tells what the machine knows, above all when no agent does; and nothing private."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli.doctor import bundle
from agent.config.config import Config
from agent.config.sections import AgentSection
from tests.cli.conftest import Cli
from tests.cli.doctor.test_doctor import state

__all__ = ["state"]

SECRET = "hunter22-in-a-log"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """journalctl and systemctl of this test's own, first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def say(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    say("journalctl", f'echo "$@"; echo "wa-agent[7]: password={SECRET} was refused"')
    say("systemctl", 'echo "$@"; echo NRestarts=3')
    return say


async def unpacked(cli: Cli, tmp_path: Path, *more: str) -> dict[str, str]:
    target = tmp_path / "bundle.tar.gz"
    nobody = str(tmp_path / "nobody.sock")
    await cli("doctor", "--socket", nobody, "--bundle", str(target), *more)
    with tarfile.open(target) as archive:
        return {
            one.name.removeprefix("wa-agent/"): archive.extractfile(one).read().decode()  # type: ignore[union-attr]
            for one in archive.getmembers()
        }


async def test_without_an_agent_the_bundle_has_logs_and_units(
    cli: Cli, state: Path, tmp_path: Path, programs: Callable[..., None]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "repairs.log").write_text("".join(f"line {n}\n" for n in range(2000)))
    (state / "run/shop").mkdir(parents=True)
    (state / "run/shop/worker.log").write_text(f"cannot log in: token: {SECRET}\nlast words\n")
    config = tmp_path / "agent.toml"
    config.write_text(f'[log]\nfolder = "{logs}"\n')
    before = sorted((path, path.stat().st_mtime_ns) for path in state.rglob("*"))
    parts = await unpacked(cli, tmp_path, "--state", str(state), "--config", str(config))
    assert "was refused" in parts["journal.txt"]
    assert "-u wa-instance@*.service" in parts["journal.txt"]
    assert "NRestarts=3" in parts["units.txt"]
    assert "Environment" not in parts["units.txt"].replace("EnvironmentFile", "")
    assert parts["logs/repairs.log"].count("\n") == bundle.LINES
    assert parts["logs/repairs.log"].endswith("line 1999\n")
    assert "last words" in parts["workers/shop.log"]
    assert "cannot reach the agent" in parts["events.json"]
    for name, text in parts.items():
        assert SECRET not in text, name
    left = sorted((path, path.stat().st_mtime_ns) for path in state.rglob("*"))
    assert left == before, "looking leaves no trace"


async def test_a_part_that_cannot_be_read_is_named_and_costs_no_bundle(
    cli: Cli,
    state: Path,
    tmp_path: Path,
    programs: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs("journalctl", "echo no permission >&2; exit 1")
    parts = await unpacked(cli, tmp_path, "--state", str(state))
    assert "no permission" in parts["journal.txt"]
    (tmp_path / "bundle.tar.gz").unlink()
    programs("systemctl", "exec sleep 60")
    monkeypatch.setattr(bundle, "_SECONDS", 0.5)
    parts = await unpacked(cli, tmp_path, "--state", str(state))
    assert parts["units.txt"].startswith("# missing")


def test_a_link_that_a_worker_planted_is_not_followed(
    tmp_path: Path, programs: Callable[..., None]
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "worker.log").write_text("root's own")
    (tmp_path / "state/run/one").mkdir(parents=True)
    (tmp_path / "state/run/one/worker.log").symlink_to(private / "worker.log")
    (tmp_path / "state/run/two").symlink_to(private)
    (tmp_path / "state/run/pipe").mkdir()
    os.mkfifo(tmp_path / "state/run/pipe/worker.log")
    config = Config(agent=AgentSection(state_path=tmp_path / "state"))
    parts = dict(bundle.machine_parts(config))
    assert "root's own" not in "".join(parts.values())
    assert set(parts) >= {"workers/one.log", "workers/pipe.log"}
    assert "workers/two.log" not in parts
