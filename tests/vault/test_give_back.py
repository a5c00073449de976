"""A bot's own files are given back when its pairing ends, wherever a kill falls in between."""

import json
from pathlib import Path

import pytest

from agent.core.model import Instance, InstanceId, SessionRecord
from agent.supervise import act
from agent.supervise.facts import Facts
from agent.vault import restore
from tests.moving.conftest import creds, keys_of, write_folder

SHOP = InstanceId("shop")


def told(root: Path) -> Facts:
    """A session with orders beside its store."""
    account = creds()["me"]["id"].split(":")[0]
    act.create(root, Instance(SHOP, "program", True, {"program": "bot"}, 1.0))
    session = root / SHOP / "session"
    write_folder(session / "auth_info_baileys", keys_of())
    (session / "orders.sqlite").write_text("orders")
    (session / "media").mkdir()
    instance = Instance(SHOP, "program", True, {"program": "bot"}, 1.0)
    return Facts(instance, SessionRecord(paired=True, account=account))


class Killed(BaseException):
    """The agent ends here."""


def dies_at(patch: pytest.MonkeyPatch, owner: object, name: str, after: int) -> None:
    whole, calls = getattr(owner, name), []

    def dies(*args: object, **how: object) -> object:
        calls.append(args)
        if len(calls) > after:
            raise Killed
        return whole(*args, **how)

    patch.setattr(owner, name, dies)


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        (act, "create", 0),
        (act, "give_back", 0),
        (restore.os, "rename", 1),  # the folder is in the trash, and nothing is back
        (restore.os, "rename", 2),
        (restore.os, "unlink", 0),
    ],
    ids=["before the new folder", "before any is back", "at the first", "at the second", "last"],
)
def test_a_kill_while_files_are_given_back_costs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: int
) -> None:
    facts = told(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_at(patch, owner, name, after)
        act.set_aside(tmp_path, facts, "logout")
    act.set_aside(tmp_path, facts, "logout")  # as the next agent does
    session = tmp_path / SHOP / "session"
    assert sorted(path.name for path in session.iterdir()) == ["media", "orders.sqlite"]
    assert (session / "orders.sqlite").read_text() == "orders"
    assert not list((tmp_path / ".trash").glob(f"*/{restore.MARK}"))
    (store,) = (tmp_path / ".trash").glob("*/session/auth_info_baileys")
    assert json.loads((store / "creds.json").read_text())["me"]["id"]


def test_no_name_in_the_trash_leads_out_of_it(tmp_path: Path) -> None:
    facts = told(tmp_path)
    retired = act.set_aside(tmp_path, facts, "logout")
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / ".trash" / retired
    (folder / restore.MARK).write_text(json.dumps(["../../../secret", "..", "", "/etc", 5]))
    assert restore.give_back(tmp_path, SHOP) == []
    assert (tmp_path / "secret").read_text() == "mine"
