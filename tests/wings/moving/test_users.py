"""The program that uses a session is found whatever it calls the folder."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.wings.moving.recognise import Hints, find_sessions
from agent.wings.moving.users import RECENT, user_of_folder
from tests.lacking import lacks, not_lent
from tests.wings.moving.conftest import keys_of, write_folder

WAITS = "console.log(1); setInterval(() => {}, 1000)"


@contextmanager
def contained(script: str, *mounts: tuple[Path, Path], cwd: Path) -> Iterator[int]:
    """A bot in a mount namespace of its own, where each first folder is seen at the second path."""
    if shutil.which("unshare") is None:
        lacks("unshare is not installed")
    binds = " && ".join(f"mount --bind '{shown}' '{at}'" for shown, at in mounts)
    inside = f'{binds} && cd "$1" && exec node -e "$2"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh", str(cwd), script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bot:
        assert bot.stdout is not None
        if not bot.stdout.readline():
            bot.wait()
            not_lent("a mount namespace")
        try:
            yield bot.pid
        finally:
            bot.kill()


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    """A folder of keys inside a bot's, beside empty folders of a container."""
    for name in ("app/auth", "data", "elsewhere"):
        (tmp_path / "container" / name).mkdir(parents=True)
    write_folder(tmp_path / "srv" / "bot" / "auth", keys_of())
    (tmp_path / "srv" / "unrelated").mkdir()
    return tmp_path / "srv" / "bot"


def refused(folder: Path, pid: int) -> bool:
    [session] = find_sessions(str(folder), Hints())
    assert not find_sessions(str(folder), Hints(stopped=True))[0].problem
    return session.code == "in_use" and f"process {pid}" in session.problem


def test_a_bot_in_a_container_is_seen_by_its_working_directory(tmp_path: Path, bot: Path) -> None:
    app = tmp_path / "container" / "app"
    with contained(WAITS, (bot, app), cwd=app) as pid:
        assert refused(bot / "auth", pid)
    assert user_of_folder(bot / "auth") == ""


def test_a_container_with_another_folder_uses_this_one_not(tmp_path: Path, bot: Path) -> None:
    container = tmp_path / "container"
    mount = (bot.parent / "unrelated", container / "data")
    with contained(WAITS, mount, cwd=container / "elsewhere"):
        assert user_of_folder(bot / "auth") == ""


def test_a_session_that_was_just_written_is_refused_until_a_person_confirms(
    tmp_path: Path,
) -> None:
    """Its program may run on another machine, where no process of this one tells."""
    folder = write_folder(tmp_path / "auth", keys_of(), ago=RECENT + 60)
    assert not find_sessions(str(folder), Hints())[0].problem
    (folder / "pre-key-1.json").touch()
    [session] = find_sessions(str(folder), Hints())
    assert (session.code, "--stopped" in session.problem) == ("in_use", True), session.problem
    assert not find_sessions(str(folder), Hints(stopped=True))[0].problem
