"""What `import` found and what became of it: the list, connected or not, able to read or not."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cli.client import Client
from agent.cli.command import client_of, wants_json
from agent.cli.sessions.instances import wait_until_connected
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import print_json

if TYPE_CHECKING:
    from agent.moving.session import FoundSession

_EVERY = 0.5


@dataclass(slots=True)
class Planned:
    session: "FoundSession"
    id: str
    result: str = ""


def wait_for_first_messages(
    options: argparse.Namespace, id: str, deadline: float
) -> dict[str, Any]:
    """Its first messages once they are counted, or as far as they came by then."""
    client = client_of(options)
    found: dict[str, Any] = {}

    def wait() -> dict[str, Any]:
        wait_until_connected(client, id, max(deadline - time.monotonic(), 0.0))
        while not found.get("over"):
            found.update(_first_messages(client, id))
            if time.monotonic() >= deadline:
                break
            time.sleep(_EVERY)
        return found

    return with_progress(
        f"waiting for {id}",
        wait,
        lambda: f", {found['sentence']}" if found else "",
        quiet=wants_json(options),
    )


def _first_messages(client: Client, id: str) -> dict[str, Any]:
    told = client.get(f"/api/instance/{id}/details")["first_messages"]
    # A session without a pairing has none to wait for.
    return told or {"over": True, "unread": 0, "sentence": "it was not paired"}


def print_imported(options: argparse.Namespace, told: dict[str, Any]) -> None:
    if wants_json(options):
        print_json(told)
        return
    print(f"{told['id']} imported, {'enabled' if told['enabled'] else 'disabled'}")
    print(f"engine {told['engine']}, account {told['account'] or 'not known yet'}")
    print(f"SHA-256 of the archive: {told['sha256']}")
    if first := told.get("first_messages"):
        print(first["sentence"])
    if told["trash"]:
        print(f"the trash has the old session as {told['trash']}")
    if not told["enabled"]:
        print(f"run it once no other copy runs: wa-agent enable {told['id']}")


def print_plan(options: argparse.Namespace, plan: Sequence[Planned]) -> None:
    from agent.moving.session import age

    print_list(
        options,
        [
            {
                "name": one.session.name,
                "program": one.session.program,
                "account": one.session.account,
                "written": one.session.written,
                "pre_keys": one.session.pre_keys,
                "records": one.session.records,
                "id": one.id,
                "problem": one.session.problem,
                "code": one.session.code,
                "result": one.result,
            }
            for one in plan
        ],
        ("NAME", "PROGRAM", "ACCOUNT", "WRITTEN", "PRE-KEYS", "ID", "RESULT"),
        lambda row: (
            row["name"],
            row["program"],
            row["account"] or "-",
            age(row["written"]),
            row["pre_keys"] or "-",
            row["id"] or "-",
            row["result"]
            or (f"refused: {row['problem']}" if row["problem"] else "can be imported"),
        ),
        nothing="no session",
    )
