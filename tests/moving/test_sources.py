"""Each source is recognised, shown as what it is, and refused where it cannot be moved."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.moving import sources
from agent.moving.sources import RECENT, find_sessions, look_at, user_of_folder, without_twins
from agent.moving.sources import write_folder as write_session
from agent.vault.archives import FoundSession
from tests.lacking import lacks, not_lent
from tests.moving.conftest import (
    Keys,
    age,
    as_whaticket,
    buffer,
    creds,
    keys_of,
    pair_of,
    read_folder,
    write_folder,
    write_json,
)

WAITS = "console.log(1); setInterval(() => {}, 1000)"


def whole(session: FoundSession, name: str) -> None:
    assert (session.name, session.problem, session.code) == (name, "", "")
    assert (session.account, session.pre_keys) == ("5511900000001", 2)


@pytest.mark.parametrize(
    ("below", "name"),
    [("auth_info_baileys",) * 2, ("instances/shop", "shop"), (".sessions/noweb/shop/auth", "shop")],
)
def test_a_folder_of_keys_is_found_from_above_and_by_itself(
    tmp_path: Path, below: str, name: str
) -> None:
    folder = write_folder(tmp_path / below, keys_of())
    (folder / "notes.txt").write_text("of the bot")
    for source in (tmp_path, folder):
        [session] = find_sessions(str(source))
        whole(session, name)
    (target := tmp_path / "target").mkdir()
    write_session(session, target)
    assert read_folder(target).keys() == keys_of().keys()


JSON = {
    "whaticket's column": as_whaticket(keys_of()),
    "Evolution's hash in Redis": {key: raw.decode() for key, raw in keys_of().items()},
    "whaticket's keys in Redis": {f"sessions:7:{k}": raw.decode() for k, raw in keys_of().items()},
    "a text of a text": {key: json.dumps(raw.decode()) for key, raw in keys_of().items()},
}


@pytest.mark.parametrize("kind", JSON)
def test_one_session_is_read_from_json(tmp_path: Path, kind: str) -> None:
    path = write_json(tmp_path / "shop.json", JSON[kind])
    [session] = find_sessions(str(path))
    assert session.code == "in_use", "the file does not tell whether its program runs"
    [session] = find_sessions(str(path), stopped=True)
    whole(session, "shop")
    assert json.loads(session.keys["pre-key-1"]) == json.loads(keys_of()["pre-key-1"])


def test_keys_that_lie_elsewhere_are_added(tmp_path: Path) -> None:
    keys = keys_of()
    path = write_json(tmp_path / "shop.json", {"creds": json.dumps(keys.pop("creds").decode())})
    assert find_sessions(str(path), stopped=True)[0].code == "no_pre_keys"
    texts = {key: raw.decode() for key, raw in keys.items()}
    for place in (write_folder(tmp_path / "abc", keys), write_json(tmp_path / "k.json", texts)):
        [session] = find_sessions(str(path), stopped=True, keys=str(place))
        whole(session, "shop")


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        (keys_of(pre_keys=0), "no_pre_keys"),
        ({"creds": keys_of()["creds"], "pre-key-1": b""}, "no_pre_keys"),
        (keys_of(creds(me=None)), "not_paired"),
        (keys_of(creds(pairingCode="ABCD1234", account=None)), "not_paired"),
        (keys_of(creds(noiseKey=None)), "incomplete"),
        (keys_of(creds(noiseKey={"private": buffer(b"!"), "public": buffer(b"!")})), "incomplete"),
        ({**keys_of(), "creds": b'{"me": {'}, "damaged"),
        ({**keys_of(), "creds": b"[" * 9000 + b"]" * 9000}, "damaged"),
    ],
)
def test_a_session_that_cannot_be_moved_has_its_code(tmp_path: Path, keys: Keys, code: str) -> None:
    write_folder(tmp_path / "bot", keys)
    path = write_json(tmp_path / "shop.json", {key: raw.decode() for key, raw in keys.items()})
    for source in (tmp_path, path):
        [session] = find_sessions(str(source), stopped=True)
        assert (session.code, bool(session.problem)) == (code, True), session


def test_a_huge_key_is_not_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bot", keys_of())
    os.truncate(folder / "pre-key-1.json", 3 << 30)
    assert find_sessions(str(age(folder)))[0].code == "too_large"


PEERS: dict[str, Keys] = {
    "cut": {"session-5511900000002.0": b'{"private": '},
    "not a number": {"session-5511900000002.0": b'{"a": NaN}'},
    "two keys with one file name": {"sender-key-a:b": b"{}", "sender-key-a-b": b"{}"},
    "half a character in a name": {"sender-key-\udcff": b"{}"},
    "a name too long for a file": {f"sender-key-{'g' * 300}": b"{}"},
}
"""Records that a contact or a power cut left, by what is wrong with them."""


@pytest.mark.parametrize("case", PEERS)
def test_a_record_that_cannot_be_used_stays_behind_and_the_session_moves(
    tmp_path: Path, case: str
) -> None:
    climbs = {"sender-key-/../../x": b"{}"}
    session = look_at("JSON", "shop", lambda: keys_of() | climbs | PEERS[case], written=None)
    write_session(session, tmp_path)
    written = {path.name for path in tmp_path.iterdir()} - {"sender-key-__..__..__x.json"}
    assert (session.problem, written) == ("", {f"{key}.json" for key in keys_of()})
    assert sum(session.left_out.values()) == len(PEERS[case])
    assert "5511900000002" not in session.left_out_sentence, "no contact's number is told"


def test_of_copies_of_one_device_none_is_chosen(tmp_path: Path) -> None:
    other = creds(me={"id": "5511880000000:1@x"}, noiseKey=pair_of(9))
    for name, keys in (("auth1", keys_of()), ("auth2", keys_of()), ("sales", keys_of(other))):
        write_folder(tmp_path / name, keys)
    found = without_twins(find_sessions(str(tmp_path)))
    assert [session.code for session in found] == ["same_device", "same_device", ""]
    assert "auth2 is the same linked device" in found[0].problem


# Two programs with one session throw each other out.


@contextmanager
def running(*mounts: tuple[Path, Path], cwd: Path) -> Iterator[int]:
    """A bot in a mount namespace of its own, where each first folder is seen at the second path."""
    if shutil.which("unshare") is None:
        lacks("unshare is not installed")
    binds = " && ".join(["true", *(f"mount --bind '{shown}' '{at}'" for shown, at in mounts)])
    inside = f'{binds} && cd "$1" && exec node -e "$2"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh", str(cwd), WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bot:
        assert bot.stdout is not None
        if not bot.stdout.readline():
            bot.wait()
            not_lent("a mount namespace")
        try:
            yield bot.pid
        finally:
            bot.kill()


@pytest.mark.parametrize("how", ["above", "container's cwd", "container's mount", "unrelated"])
def test_the_bot_that_uses_a_folder_is_found_whatever_it_calls_it(tmp_path: Path, how: str) -> None:
    for name in ("app", "data", "srv/unrelated"):
        (tmp_path / name).mkdir(parents=True)
    folder = write_folder(tmp_path / "srv" / "my bot" / "auth", keys_of())
    app, data = tmp_path / "app", tmp_path / "data"
    mounts, cwd = {
        "above": ((), folder.parent),
        "container's cwd": (((folder.parent, app),), app),
        "container's mount": (((folder.parent, data),), app),
        "unrelated": (((tmp_path / "srv" / "unrelated", data),), app),
    }[how]
    with running(*mounts, cwd=cwd) as pid:
        used = how != "unrelated"
        assert (f"process {pid}" in user_of_folder(folder)) is used
        [session] = find_sessions(str(folder))
        assert (session.code == "in_use") is used
        whole(find_sessions(str(folder), stopped=True)[0], "my bot")
    assert user_of_folder(folder) == ""


def test_a_session_that_was_just_written_is_in_use_and_not_damaged(tmp_path: Path) -> None:
    """The session's program may run on another machine, where no process of this one tells."""
    folder = write_folder(tmp_path / "shop", keys_of(), ago=RECENT + 60)
    whole(find_sessions(str(folder))[0], "shop")
    (folder / "creds.json").write_text("{")
    [session] = find_sessions(str(folder))
    assert (session.code, "--stopped" in session.problem) == ("in_use", True), session.problem
    [session] = find_sessions(str(folder), stopped=True)
    assert (session.code, dict(session.keys)) == ("damaged", {}), "nothing half-read is moved"


def test_a_session_whose_keys_come_and_go_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs replace a key by a rename: between its name and its time it may be gone."""
    folder = write_folder(tmp_path / "shop", keys_of())
    first = iter([[SimpleNamespace(name="pre-key-9.json", stat=(folder / "pre-key-9.json").stat)]])
    found = sources._key_files
    monkeypatch.setattr(sources, "_key_files", lambda folder: next(first, None) or found(folder))
    assert find_sessions(str(folder))[0].code == "in_use"


def test_a_session_that_cannot_be_read_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    for name in ("good", "odd"):
        write_folder(tmp_path / name, keys_of())
    (tmp_path / "odd" / "creds.json").unlink()
    for link in ("odd/creds.json", "good/session-1.0.json"):
        (tmp_path / link).symlink_to("/etc/hostname")  # which no process holds open
    good, odd = find_sessions(str(tmp_path))
    assert (good.left_out, odd.code) == ({"session": 1}, "damaged"), "no link is followed"
    session = look_at("JSON", "shop", lambda: {"creds": Path("/").read_bytes()}, written=None)
    assert (session.code, session.problem) == ("unreadable", "it cannot be read: Is a directory")
