"""Repairs by hand: of one instance, of all, a setup, incidents, and the statistics of repairs."""

import argparse
from typing import Any
from urllib.parse import quote

from agent.cli.client import Client
from agent.cli.command import (
    Subparsers,
    add_command,
    add_instance_command,
    client_of,
    instance_id,
    wants_json,
)
from agent.cli.sessions.create import add_place, place_of
from agent.cli.sessions.passkey import add_confirm, ask_twice
from agent.cli.sessions.qr import draw_code
from agent.cli.sessions.repair_round import SECONDS, TO_THE_END, repair_all
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import clean, duration, moment, pair_lines, print_json, table_lines
from agent.core.recovery.repair import Ending
from agent.errors import InvalidRequest, TryLater, WaError

_ENDS = "confirm that a pairing may end, on an Evolution server with the session's chats there"

_ASKED = (
    ("recover", "repair an instance by every step that keeps its pairing"),
    ("ensure-healthy", "repair an instance until it is connected or shows a code to scan"),
)


def add(commands: Subparsers) -> None:
    for name, summary in _ASKED:
        parser = add_instance_command(commands, name, ask, summary)
        parser.set_defaults(verb=name)
        if name == "ensure-healthy":
            _add_word(parser)
    summary = (
        "retire an instance's session and show a new code; the trash keeps the old session, an"
        " Evolution server deletes it with its chats"
    )
    parser = add_instance_command(commands, "cleanup", ask, summary, "--yes")
    _add_word(parser)
    parser.set_defaults(verb="cleanup")

    summary = "run one round of repairs; exit status 1 if a session is still unwell"
    parser = add_command(commands, "repair", repair, summary, "all --dry-run")
    parser.add_argument("id", metavar="all|ID", nargs="?", help="every instance, or one")
    parser.add_argument("--dry-run", action="store_true", help="print the steps without doing them")
    parser.add_argument("--debug", action="store_true", help="print each step to stderr")
    parser.add_argument(
        "--stats", action="store_true", help="print counts and times of checks and repairs"
    )

    summary = "create or repair an instance and show its code"
    parser = add_command(commands, "setup", set_up, summary, "sales --engine sandbox")
    parser.add_argument("id", metavar="NAME", type=instance_id, help="the instance's id")
    parser.add_argument("--engine", help="engine of a new instance")
    add_place(parser)
    parser.add_argument("--title", help="name for people; default: its id")
    _add_word(parser)

    summary = "show failures that many instances have in common"
    parser = add_command(commands, "incidents", incidents, summary)
    among = parser.add_subparsers(metavar="COMMAND", required=False)
    summary = "let the members of an incident try again"
    parser = add_command(among, "release", release, summary, "sandbox")
    parser.add_argument("group", metavar="GROUP", help="as `incidents` shows it")


def _add_word(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help=_ENDS)
    add_confirm(parser)


def ask(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}/{options.verb}{TO_THE_END}"

    def send(body: dict[str, Any] | None) -> dict[str, Any]:
        return with_progress(
            f"{options.verb} {options.id}",
            lambda: client.post(path, body, SECONDS),
            lambda: _step_now(client, options.id),
        )

    if options.verb != "recover":
        confirm = {"confirm": options.yes}
        result = ask_twice(options, lambda more: send(confirm | more))
    else:
        result = send(None)
    done = f"{options.id} {_how_it_ended(client, options.id, result)}"
    return print_answer(options, result, done, good=result["healthy"])


def _step_now(client: Client, id: str) -> str:
    try:
        repair = client.get(f"/api/instance/{id}/details")["repair"]
    except WaError:
        return ""  # the answer of the repair itself will tell it
    if repair is None or repair["ending"] or repair["step"] == "none":
        return ""
    return f", {repair['step'].replace('_', ' ')}, try {repair['tries']}"


def _how_it_ended(client: Client, id: str, result: dict[str, Any]) -> str:
    if result["cleaned"] and result["healthy"]:
        return f"shows a new code to scan ({_old_session(client, id)})"
    if result["recovered"]:
        return "was repaired"
    if result["healthy"]:
        return "is well"
    if result["ending"] == Ending.NEEDS_SCAN and result["sentence"]:
        return f"is not linked: {result['sentence']}"
    ending = result["ending"].replace("_", " ")
    return f"is not well: {ending}: {result['sentence']}; more: wa-agent why {id}"


def _old_session(client: Client, id: str) -> str:
    """Where a clean-up left it."""
    instance = client.get(f"/api/instance/{id}")
    if not instance["backend"]:
        return "the trash has its old session"
    if instance["engine"] == "evolution":
        row = f"its row on {instance['backend']} was deleted and made again"
        return f"{row}; its chats there are gone"
    return f"its old session was on {instance['backend']}, the trash has nothing of it"


def repair(options: argparse.Namespace) -> int:
    client = client_of(options)
    if options.stats:
        return _show_statistics(client, options)
    if options.id is None:
        raise InvalidRequest("cannot repair: give all, an instance, or --stats", field="id")
    if options.id == "all":
        instances = list(client.instances())
    else:
        instances = [client.get(f"/api/instance/{instance_or_refuse(options.id)}")]
    repaired = repair_all(client, instances, options)
    lines = table_lines(("ID", "HEALTH", "WHY", "RESULT"), [result.row for result in repaired])
    return print_answer(
        options,
        [result.shown for result in repaired],
        *(lines if repaired else ["nothing needs a repair"]),
        good=all(result.good for result in repaired),
    )


def instance_or_refuse(text: str) -> str:
    try:
        return instance_id(text)
    except argparse.ArgumentTypeError as error:
        raise InvalidRequest(str(error), field="id") from None


def _show_statistics(client: Client, options: argparse.Namespace) -> int:
    totals = client.get("/api/repairs/statistics")
    rate = totals["success_rate"]
    lines = pair_lines(
        {
            "checked": totals["checked"],
            "mean time of a check": _milliseconds(totals["mean_check_seconds"]),
            "repaired": totals["repaired"],
            "cleaned": totals["cleaned"],
            "failed": totals["failed"],
            "mean time to repair": duration(totals["mean_seconds_to_repair"]),
            "success rate": "-" if rate is None else f"{rate:.0%}",
            "asked for by hand": totals["interventions"]["asked"],
            "ended needing a person": totals["interventions"]["needed"],
        }
    )
    if totals["steps"]:
        steps = [
            (name, step["done"], step["failed"], f"{step['seconds']:.1f}")
            for name, step in totals["steps"].items()
        ]
        lines += table_lines(("STEP", "DONE", "FAILED", "SECONDS"), steps)
    return print_answer(options, totals, *lines)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def set_up(options: argparse.Namespace) -> int:
    client = client_of(options)
    body = {"name": options.title or options.id, "instanceName": options.id}
    if options.engine:
        body["engine"] = options.engine
    body |= place_of(options) | {"confirm": options.yes}
    path = "/api/v1/whatsapp/setup?wait=120"

    def send(more: dict[str, Any]) -> dict[str, Any]:
        return with_progress(
            f"setting up {options.id}",
            lambda: client.post(path, body | more, SECONDS),
            lambda: _step_now(client, options.id),
        )

    instance = ask_twice(options, send)
    if wants_json(options):
        print_json(instance)
    elif instance["ending"] == "goes_on":
        raise TryLater(
            f"{options.id} is {instance['status']}: {clean(instance['sentence'])}. The agent goes"
            f" on; ask for its code later: wa-agent qr {options.id}; more: wa-agent why"
            f" {options.id}"
        )
    elif instance["qr"] is None:
        print(f"{options.id} is connected")
    else:
        print(draw_code(client, options.id), end="")
        print(f"scan with WhatsApp: {options.id}")
        if instance["cleaned"]:
            print(_old_session(client, options.id))
    return 0


def incidents(options: argparse.Namespace) -> int:
    return print_list(
        options,
        client_of(options).get("/api/incidents")["incidents"],
        ("GROUP", "SINCE", "WHAT", "FIRST TO TRY", "TRIES"),
        lambda incident: (
            incident["group"],
            moment(incident["since"]),
            incident["sentence"],
            incident["canary"] or "-",
            incident["tries"],
        ),
        nothing="no incidents",
    )


def release(options: argparse.Namespace) -> int:
    answer = client_of(options).post(f"/api/incidents/{quote(options.group)}/release")
    done = f"{answer['released']} is released: its instances try again"
    return print_answer(options, answer, done)
