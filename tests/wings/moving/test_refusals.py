"""Every source that cannot be moved has a code of its own, whatever kind of source it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import WaError
from agent.wings.moving.recognise import Hints, find_sessions
from agent.wings.moving.session import look_at
from agent.wings.moving.session import write_folder as write_session
from tests.wings.moving.conftest import Keys, creds, keys_of, write_folder, write_json

BROKEN: dict[str, Keys] = {
    "no_pre_keys": keys_of(pre_keys=0),
    "not_paired": keys_of(creds(me=None)),
    "incomplete": keys_of(creds(noiseKey=None)),
    "damaged": {**keys_of(), "creds": keys_of()["creds"][:99]},
}


def in_folder(folder: Path, keys: Keys) -> Path:
    write_folder(folder / "bot", keys)
    return folder


def in_json(folder: Path, keys: Keys) -> Path:
    texts = {key: raw.decode() for key, raw in keys.items()}
    return write_json(folder / "shop.json", texts)


@pytest.mark.parametrize("code", BROKEN)
@pytest.mark.parametrize("make", [in_folder, in_json])
def test_an_incomplete_source_has_its_code(tmp_path: Path, make: Any, code: str) -> None:
    [session] = find_sessions(str(make(tmp_path, BROKEN[code])), Hints(stopped=True))
    assert (session.code, bool(session.problem)) == (code, True), session


PEERS: dict[str, Keys] = {
    "empty": {"session-5511900000002.0": b""},
    "cut": {"session-5511900000002.0": b'{"private": '},
    "not a number": {"session-5511900000002.0": b'{"a": NaN}'},
    "nested too deep": {"session-5511900000002.0": b"[" * 100_000},
    "two keys with one file name": {"sender-key-a:b": b"{}", "sender-key-a-b": b"{}"},
    "a NUL in a name": {"sender-key-a\0b": b"{}"},
    "half a character in a name": {"sender-key-\udcff": b"{}"},
    "a name too long for a file": {f"sender-key-{'g' * 300}": b"{}"},
    "a name that climbs out": {"sender-key-/../../x": b"{}"},
    "a damaged pre-key": {"pre-key-9": b"\xff"},
}
"""Records that a contact or a power cut left, by what is wrong with them."""


@pytest.mark.parametrize("case", PEERS)
def test_a_record_that_cannot_be_used_stays_behind_and_the_session_moves(
    tmp_path: Path, case: str
) -> None:
    session = look_at("JSON", "shop", lambda: keys_of() | PEERS[case], written=None)
    write_session(session, tmp_path)
    written = {path.name for path in tmp_path.iterdir()} - {"sender-key-__..__..__x.json"}
    assert (session.problem, written) == ("", {f"{key}.json" for key in keys_of()})
    if case != "a name that climbs out":
        assert sum(session.left_out.values()) == len(PEERS[case])
        assert "left out" in session.left_out_sentence
        assert "5511900000002" not in session.left_out_sentence, "no contact's number is told"


def test_a_session_that_cannot_be_read_at_all_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "odd"):
        write_folder(tmp_path / name, keys_of())

    def read(folder: Path) -> Keys:
        if folder.name == "odd":
            raise ZeroDivisionError("SECRET")
        return keys_of()

    monkeypatch.setattr("agent.wings.moving.folders.read_folder", read)
    good, odd = find_sessions(str(tmp_path), Hints())
    assert (good.problem, odd.code) == ("", "unreadable")
    assert odd.problem == "it cannot be read: ZeroDivisionError"


def a_link_to_itself(folder: Path) -> str:
    (folder / "shop.json").symlink_to("shop.json")
    return str(folder / "shop.json")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(str, "no_session", id="an empty folder"),
        pytest.param(lambda _: "postgresql://db/x", "unknown", id="an address"),
        pytest.param(lambda _: "/no/such/file", "unreadable", id="no file"),
        pytest.param(a_link_to_itself, "unreadable", id="a file that cannot be opened"),
    ],
)
def test_an_unreadable_source_or_one_without_a_session_has_its_code(
    tmp_path: Path, make: Callable[[Path], str], code: str
) -> None:
    with pytest.raises(WaError) as caught:
        find_sessions(make(tmp_path), Hints())
    assert caught.value.code == code, caught.value


def test_a_store_that_its_program_is_writing_is_in_use_and_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "bot", BROKEN["damaged"])
    monkeypatch.setattr("agent.wings.moving.folders.user_of_folder", lambda _: "node (process 7)")
    [session] = find_sessions(str(tmp_path), Hints())
    assert (session.code, "node (process 7) uses it" in session.problem) == ("in_use", True)
    [session] = find_sessions(str(tmp_path), Hints(stopped=True))
    assert (session.code, dict(session.keys)) == ("damaged", {}), "nothing half-read is moved"
