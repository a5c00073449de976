"""Copies of a session on another machine: what was taken can be built, and nothing else."""

import json
import os
import random
import sqlite3
from pathlib import Path
from unittest.mock import Mock

import pytest

from agent.core.model import Instance, InstanceId
from agent.errors import Refused, VaultError, WaError
from agent.fleet.copies import changed, standby
from agent.fleet.copies.change import BLOCK, Change, File, FleetKey, Sealed, apply, seal
from agent.fleet.copies.changed import Beside, Changed
from agent.fleet.copies.standby import Standby
from agent.messages.outbox import FORM
from agent.vault.identity import create

ID = InstanceId("shop")
Files = dict[str, bytes]


@pytest.fixture
def key() -> FleetKey:
    return FleetKey(os.urandom(32))


@pytest.fixture
def session(tmp_path: Path) -> Path:
    create(tmp_path / "sessions", Instance(ID, "sandbox", True))
    return tmp_path / "sessions" / ID / "session"


def files_of(session: Path) -> Files:
    found = (it for it in session.rglob("*") if it.is_file())
    files = {f"session/{it.relative_to(session)}": it.read_bytes() for it in found}
    return {**files, "instance.json": (session.parent / "instance.json").read_bytes()}


def disturb(session: Path, draw: random.Random) -> None:
    """As stores write: a new file in the place of the old one, sometimes in a folder."""
    for _ in range(draw.randint(1, 4)):
        path = session / draw.choice(["a", "b", "c", "in/d", "in/deep/e"])
        if (old := path.read_bytes() if path.exists() else b"") and draw.random() < 0.2:
            path.unlink()
            continue
        cut = draw.randint(0, len(old))
        more = draw.randbytes(draw.choice([0, 3, 500, BLOCK, BLOCK + 1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name("new")
        content = draw.choice([old + more, old[:cut], more, old[:cut] + b"x" + old[cut:]])
        temporary.write_bytes(content)
        temporary.replace(path)


class Owner:
    """Seals what a folder has, and knows what it was at each number."""

    def __init__(self, key: FleetKey, session: Path) -> None:
        self.key, self.session, self.number, self.was = key, session, 0, dict[int, Files]()
        self.begin()

    def begin(self) -> None:
        root = self.session.parents[1]
        self.beside = Beside(root, root.parent / "outbox.db")
        self._changed, self._base = Changed(root, ID, "sandbox", self.beside), True
        self._row = os.urandom(4).hex()

    def look(self) -> Sealed | None:
        if (change := self._changed.look()) is None:
            return None
        self.number += 1
        self.was[self.number] = files_of(self.session)
        sealed = seal(self.key, Sealed(ID, 1, self.number, self._base, self._row, b""), change)
        self._base = False
        return sealed


@pytest.mark.parametrize("seed", range(4))
def test_what_was_taken_over_a_lossy_line_is_built_again(
    seed: int, tmp_path: Path, session: Path, key: FleetKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "FOLD_AT", 7)
    draw, owner, there = random.Random(seed), Owner(key, session), Standby(tmp_path / "there", key)
    late, taken = list[Sealed](), 0
    for _ in range(120):
        disturb(session, draw)
        if (sealed := owner.look()) is None:
            continue
        line = [sealed] * draw.choice([0, 1, 1, 1, 1, 1, 2])
        if draw.random() < 0.1:
            late, line = [*late, sealed], []
        if late and draw.random() < 0.1:
            line.append(late.pop())
        for it in line:
            try:
                there.take(it)
                assert it.number > taken
                taken = it.number
            except Refused as error:
                assert error.code in ("older", "needs_base")
                if error.code == "needs_base" and it is sealed:
                    owner.begin()
        if draw.random() < 0.1:
            there = Standby(tmp_path / "there", key)
        assert there.newest(ID) == ((1, taken) if taken else None)
        assert not taken or there.build(ID) == owner.was[taken]
    assert taken > 80


def a_row(owner: Owner, there: Standby) -> Path:
    """A base and three changes; the log."""
    for n in range(4):
        (owner.session / f"f{n}").write_bytes(bytes([n]) * 100)
        there.take(owner.look())
    return there._root / ID / "log"


def test_a_cut_or_changed_log_builds_no_other(tmp_path: Path, session: Path, key: FleetKey) -> None:
    owner = Owner(key, session)
    log = a_row(owner, Standby(tmp_path / "there", key))
    content, seen = log.read_bytes(), set()
    for cut in range(len(content) + 1):
        log.write_bytes(content[:cut])
        there = Standby(tmp_path / "there", key)
        if (newest := there.newest(ID)) is not None:
            assert there.build(ID) == owner.was[newest[1]]
            seen.add(newest[1])
    assert seen == {1, 2, 3, 4}
    for at in range(0, len(content), 5):
        log.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(VaultError):
            Standby(tmp_path / "there", key).build(ID)


def test_a_full_disk_takes_nothing_and_keeps_what_it_had(
    tmp_path: Path, session: Path, key: FleetKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, there = Owner(key, session), Standby(tmp_path / "there", key)
    a_row(owner, there)
    (session / "more").write_bytes(b"more")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", Mock(side_effect=OSError(28, "full")))
        with pytest.raises(WaError):
            there.take(sealed := owner.look())
    with pytest.raises(Refused, match="follows another"):
        there.take(sealed)
    there = Standby(tmp_path / "there", key)
    assert there.newest(ID) == (1, 4)
    there.take(sealed)
    assert there.build(ID) == owner.was[5]


def sealed_as(key: FleetKey, change: Change, **more: object) -> Sealed:
    head = {"id": ID, "epoch": 1, "number": 9, "base": True, "row": "", **more}
    return seal(key, Sealed(content=b"", **head), change)


ODD = ("", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\0", "a" * 600)


def test_a_peer_names_no_path_outside_and_no_odd_blocks(tmp_path: Path, key: FleetKey) -> None:
    there = Standby(tmp_path / "there", key)
    for id, name in (*((ID, path) for path in ODD), ("../x", "a"), ("", "a")):
        with pytest.raises(VaultError):
            there.take(sealed_as(key, Change({name: File(1, {0: b"x"})}), id=id))
    assert not [*(tmp_path / "there").iterdir()]
    for file in ((5, {0: b"x"}), (1, {1: b"x"}), (1, {0: b"xy"}), (-1, {}), (1, {-1: b"x"})):
        with pytest.raises(VaultError):
            apply({}, Change({"a": File(*file)}))


def test_another_key_or_number_opens_nothing(tmp_path: Path, session: Path, key: FleetKey) -> None:
    owner, there = Owner(key, session), Standby(tmp_path / "there", key)
    a_row(owner, there)
    assert Standby(tmp_path / "there", FleetKey(os.urandom(32))).newest(ID) is None
    change = Change({"a": File(1, {0: b"x"})})
    heads = (2, 9, True, ""), (1, 10, True, ""), (1, 9, False, ""), (1, 9, True, "x")
    wrong = [Sealed(ID, *head, sealed_as(key, change).content) for head in heads]
    for sealed in (sealed_as(FleetKey(os.urandom(32)), change), *wrong):
        with pytest.raises(VaultError):
            there.take(sealed)
    with pytest.raises(Refused, match="follows another"):
        there.take(sealed_as(key, change, number=5, base=False, row="of another agent"))
    there.take(sealed_as(key, change, epoch=2, number=1))
    with pytest.raises(Refused) as older:
        there.take(sealed_as(key, change, epoch=1, number=99))
    assert (older.value.code, there.build(ID)) == ("older", {"a": b"x"})


def test_messages_and_what_waits_to_be_sent_are_a_part_of_it(
    tmp_path: Path, session: Path, key: FleetKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, there = Owner(key, session), Standby(tmp_path / "there", key)
    (session.parent / "messages").mkdir()
    (tmp_path / "outbox").mkdir()
    box = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    box.executescript(f"pragma journal_mode = wal; {FORM.tables}")
    columns = [it[1] for it in box.execute("pragma table_info(messages)")]
    worker = sqlite3.connect(session.parent / "messages/messages.db", isolation_level=None)
    worker.executescript("pragma journal_mode = wal; create table it (n)")

    def files() -> dict[str, bytearray]:
        owner.beside.look()
        if (sealed := owner.look()) is not None:
            there.take(sealed)
        return there.build(ID)

    def arrived() -> list[int]:
        content, db = bytes(files()["messages/messages.db"]), sqlite3.connect(":memory:")
        # A file that no other program has open needs no journal; one in memory can have none.
        db.deserialize(content[:18] + b"\1\1" + content[20:])
        return [n for (n,) in db.execute("select * from it")]

    assert (arrived(), "outbox.json" in files()) == ([], False)
    monkeypatch.setattr(changed, "SHARE", 1e9)
    worker.execute("insert into it values (1)")
    owner.beside.hurry(ID)
    assert arrived() == [1]
    worker.execute("insert into it values (2)")
    assert arrived() == [1], "a copy was made a moment ago"
    owner.beside.hurry(ID)
    assert arrived() == [1, 2]
    for n, id in enumerate(("shop", "other", "shop")):
        (tmp_path / f"outbox/media{n}").write_bytes(b"media%d" % n)
        row = dict.fromkeys(columns, 0) | {"number": None, "instance": id, "id": f"m{n}"}
        row |= {"state": "accepted", "file": f"media{n}", "repeats": f"r{n}", "message_id": ""}
        box.execute(f"insert into messages values ({', '.join('?' * len(row))})", [*row.values()])
    found = files()
    names, *rows = json.loads(found["outbox.json"])
    assert [row[names.index("id")] for row in rows] == ["m0", "m2"]
    media = {path: bytes(it) for path, it in found.items() if path.startswith("outbox/")}
    assert media == {"outbox/media0": b"media0", "outbox/media2": b"media2"}
    box.execute("update messages set state = 'sent', changed_wall = 1 where id = 'm0'")
    (tmp_path / "outbox/media0").unlink()
    found = files()
    assert (b'"sent"' in found["outbox.json"], "outbox/media0" in found) == (True, False)
    # The session's worker was killed as it made its log, or took it away.
    log, index = (session.parent / f"messages/messages.db-{it}" for it in ("wal", "shm"))
    head, _ = log.read_bytes()[:32], worker.close()
    for log_is, index_is in ((head, bytes(1 << 15)), (head * 2, None), (b"", None)):
        log.write_bytes(log_is)
        index.write_bytes(index_is) if index_is else index.unlink(missing_ok=True)
        owner.beside.hurry(ID)
        assert arrived() == [1, 2]
