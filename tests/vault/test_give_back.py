"""A bot's own files are given back when its pairing ends, wherever a kill falls in between."""

import json
from pathlib import Path

from agent.core.model import Instance, InstanceId, SessionRecord
from agent.supervise import act
from agent.supervise.facts import Facts
from agent.vault import identity, restore
from tests.moving.conftest import creds, keys_of, write_folder

SHOP = InstanceId("shop")


def told(root: Path) -> Facts:
    """A session with orders beside its store."""
    account = creds()["me"]["id"].split(":")[0]
    identity.create(root, Instance(SHOP, "program", True, {"program": "bot"}, 1.0))
    session = root / SHOP / "session"
    write_folder(session / "auth_info_baileys", keys_of())
    (session / "orders.sqlite").write_text("orders")
    (session / "media").mkdir()
    instance = Instance(SHOP, "program", True, {"program": "bot"}, 1.0)
    return Facts(instance, SessionRecord(paired=True, account=account))


def test_no_name_in_the_trash_leads_out_of_it(tmp_path: Path) -> None:
    retired = act.set_aside(tmp_path, told(tmp_path), "logout")
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / ".trash" / retired
    (folder / restore.MARK).write_text(json.dumps(["../../../secret", "..", "", "/etc", 5]))
    assert restore.give_back(tmp_path, SHOP) == []
    assert (tmp_path / "secret").read_text() == "mine"
