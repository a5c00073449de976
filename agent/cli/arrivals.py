"""`import` at the agent: sends archives and shows the result, the list of sessions, and if they
connect."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from agent.cli.command import Options, duration
from agent.cli.session import wait_until_connected
from agent.core.model import parse_instance_id
from agent.errors import InvalidRequest
from agent.vault.archives import FoundSession

OURS = "wa-agent"


@dataclass(slots=True)
class Planned:
    session: FoundSession
    id: str
    result: str = ""


def send(options: Options, archive: IO[bytes], id: str | None, name: str) -> dict[str, Any]:
    """Gives an archive to the agent; the new instance."""
    wanted = {"replace": options.replace, "enable": options.enable, "id": id}
    query = {key: "true" if value is True else value for key, value in wanted.items() if value}
    return options.ask("POST /api/import", archive, f"importing {name}", **query)


def id_for(session: FoundSession, given: str | None) -> str:
    """The id that was given, or the source's name in the letters of an id."""
    if given:
        return given
    name = "".join(letter if letter.isalnum() else "-" for letter in session.name.lower())
    ascii_name = name.encode("ascii", "ignore").decode().strip("-")
    try:
        return parse_instance_id(ascii_name)
    except InvalidRequest:
        return ""


def finish(options: Options, instance: dict[str, Any]) -> int:
    """Reports one session, with --wait once it is connected."""
    if options.wait is not None:
        with options.progress(f"waiting for {instance['id']}"):
            wait_until_connected(options.client, instance["id"], options.wait)
    id, enabled, trash = instance["id"], instance["enabled"], instance["trash"]
    return options.print(
        instance,
        f"{id} imported, {'enabled' if enabled else 'disabled'}",
        f"engine {instance['engine']}, account {instance['account'] or 'not known yet'}",
        f"SHA-256 of the archive: {instance['sha256']}",
        instance.get("left_out", ""),
        f"the trash has the old session as {trash}" if trash else "",
        "" if enabled else f"run it once no other copy runs: wa-agent enable {id}",
    )


def print_plan(options: Options, plan: Sequence[Planned]) -> int:
    """4 if a session cannot be imported; an agent may refuse others, each with its cause."""
    copied = ("name", "program", "account", "written", "pre_keys", "records", "problem", "code")
    rows = [{name: getattr(its.session, name) for name in copied} for its in plan]
    for row, its in zip(rows, plan, strict=True):
        row |= {"left_out": its.session.left_out_sentence, "id": its.id, "result": its.result}
    options.print_rows(
        rows,
        {
            **{"NAME": "name", "PROGRAM": "program", "ACCOUNT": "account", "WRITTEN": _age},
            **{"PRE-KEYS": lambda row: row["pre_keys"] or "-", "ID": "id", "RESULT": _outcome},
        },
        nothing="no session",
    )
    return 4 if any(planned.session.problem for planned in plan) else 0


def _outcome(row: Mapping[str, Any]) -> str:
    if row["problem"] and not row["result"]:
        return f"refused: {row['problem']}"
    words = [row["result"] or "can be imported", row["left_out"] if not row["problem"] else ""]
    return "; ".join(filter(None, words))


def _age(row: Mapping[str, Any]) -> str:
    written = row["written"]
    return "unknown" if written is None else duration(max(time.time() - written, 0))
