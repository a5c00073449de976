"""What a session keeps is for its readers: no copy of it has it, and no other user reads it."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from agent.worker.group_access import share_session
from tests.daemon.conftest import RunningAgent
from tests.daemon.test_vault import cli, connected
from tests.wings.messages.spools import entries, spool_at
from tests.worker.test_group_access import AGENT, GROUP, WORKER, Run, root, run

__all__ = ["root", "run"]

NEEDLE = "a word that no copy has"


def in_files(root: Path) -> list[Path]:
    return [
        path for path in root.rglob("*") if path.is_file() and NEEDLE.encode() in path.read_bytes()
    ]


def in_archive(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        files = [member for member in tar.getmembers() if member.isfile()]
        assert files
        return [
            member.name
            for member in files
            if "messages/" in member.name or NEEDLE.encode() in tar.extractfile(member).read()  # type: ignore[union-attr]
        ]


async def test_no_snapshot_archive_or_bundle_has_what_is_kept(
    make_agent: Callable[..., RunningAgent], eventually: Callable[..., object], tmp_path: Path
) -> None:
    agent = make_agent()
    await agent.start()
    await connected(agent, eventually, messages_per_minute=0)
    sessions = agent.state / "sessions"
    spool_at(sessions / "a").append(entries(range(3), NEEDLE))
    kept = in_files(sessions / "a")
    assert len(kept) == 1
    made = await agent.do("POST", "/api/instance/a/snapshots")
    archive, bundle = tmp_path / "a.tar.gz", tmp_path / "bundle.tar.gz"
    assert (await cli(agent, "export", "a", archive))[0] == 0
    await cli(agent, "doctor", "--bundle", bundle)
    assert in_archive(archive) == [] and in_archive(bundle) == []
    assert in_files(sessions) == kept
    await agent.do("POST", f"/api/instance/a/snapshots/{made['name']}/restore", {})
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert in_files(sessions) == kept, "what replaces the session's files leaves it where it is"
    assert NEEDLE not in agent.log.read_text()


KEEP = """
import os, sys
from pathlib import Path
from tests.wings.messages.spools import entries, spool_at
os.umask(0o007)
spool = spool_at(Path(sys.argv[1]))
spool.append(entries(range(3)))
spool.settle(spool.newest)
print(len(spool.page(0, 10).records))
"""
READ = """
import sys
from pathlib import Path
print(len([path.read_bytes() for path in Path(sys.argv[1]).rglob("*") if path.is_file()]))
"""
CARRY = """
import os, sys
from pathlib import Path
from agent.core.model import Instance, InstanceId
from agent.vault.carried import carried
from agent.vault.identity import create
from agent.vault.trash import retire
os.umask(0o007)
root, id = Path(sys.argv[1]), InstanceId("a")
with carried(root, id):
    retire(root, id, "a test")
    create(root, Instance(id, "sandbox", True))
print(len(list((root / "a/messages").iterdir())))
"""
THROW_AWAY = """
import sys
from pathlib import Path
from agent.vault.trash import retire, sweep
retired = retire(Path(sys.argv[1]), "a", "a test")
print(len(list((retired.path / "messages").iterdir())))
sweep(Path(sys.argv[1]), 10.0, 0.0)
print(*sweep(Path(sys.argv[1]), 10.0, 20.0))
"""


def test_only_the_worker_reads_what_is_kept_and_the_agent_throws_it_away(
    run: Run, root: Path
) -> None:
    kept = run(WORKER, KEEP, root / "a")
    assert kept.stdout.strip() == "3", kept.stderr
    os.chown(root / "a", WORKER, GROUP)
    assert share_session(root / "a") == 0  # as root, the worker's own walk over its session
    os.chown(root / "a", AGENT, GROUP)
    assert "ermission" in run(AGENT, READ, root / "a/messages").stderr
    carried = run(AGENT, CARRY, root)
    assert carried.stdout.strip() == "2", carried.stderr
    assert run(WORKER, KEEP, root / "a").stdout.strip() == "3", "and the worker goes on with it"
    gone = run(AGENT, THROW_AWAY, root)
    assert gone.returncode == 0, gone.stderr
    count, *names = gone.stdout.split()
    assert int(count) == 2 and len(names) == 2
    assert not list(root.rglob("*.log"))


def test_sharing_a_session_with_its_group_opens_nothing_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "file").touch(mode=0o600)
    tmp_path.chmod(0o770)
    spool_at(tmp_path).append(entries([1]))
    assert share_session(tmp_path) == 1
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "messages").iterdir()}
    assert modes == {0o600}
