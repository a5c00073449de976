"""Repairs by hand: of one instance, of all, a setup, incidents, and what it all came to."""

import argparse
from typing import Any
from urllib.parse import quote

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, add_id, client_of, instance_id, wants_json
from agent.cli.repair_round import SECONDS, repair_all
from agent.cli.sessions.instances import add_place, every_instance, place_of
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import duration, moment, print_json, print_pairs, print_table
from agent.errors import InvalidRequest, WaError

_ASKED = (
    ("recover", "repair an instance by every step that keeps its pairing"),
    ("ensure-healthy", "repair an instance until it is connected or shows a code to scan"),
)


def add(commands: Subparsers) -> None:
    for name, summary in _ASKED:
        parser = add_command(commands, name, ask, summary, f"wa-agent {name} sales")
        add_id(parser)
        parser.set_defaults(verb=name)
    parser = add_command(
        commands, "cleanup", ask,
        "retire an instance's session and show a new code; the trash keeps the old session",
        "wa-agent cleanup sales --yes",
    )  # fmt: skip
    add_id(parser)
    parser.add_argument("--yes", action="store_true", help="confirm that a pairing may end")
    parser.set_defaults(verb="cleanup")

    parser = add_command(
        commands, "repair", repair,
        "run one round of repairs; exit status 1 if a session is still unwell",
        "wa-agent repair all --dry-run",
    )  # fmt: skip
    parser.add_argument("id", metavar="all|ID", nargs="?", help="every instance, or one")
    parser.add_argument("--dry-run", action="store_true", help="print the steps without doing them")
    parser.add_argument("--debug", action="store_true", help="print each step to stderr")
    parser.add_argument(
        "--stats", action="store_true", help="print counts and times of checks and repairs"
    )

    parser = add_command(
        commands, "setup", set_up, "create or repair an instance and show its code",
        "wa-agent setup sales --engine sandbox",
    )  # fmt: skip
    parser.add_argument("id", metavar="NAME", type=instance_id, help="the instance's id")
    parser.add_argument("--engine", help="engine of a new instance")
    add_place(parser)
    parser.add_argument("--title", help="name for people; default: its id")
    _add_incidents(commands)


def _add_incidents(commands: Subparsers) -> None:
    parser = add_command(
        commands, "incidents", incidents, "show failures that many instances have in common",
        "wa-agent incidents",
    )  # fmt: skip
    among = parser.add_subparsers(metavar="COMMAND", required=False)
    parser = add_command(
        among, "release", release, "let the members of an incident try again",
        "wa-agent incidents release sandbox",
    )  # fmt: skip
    parser.add_argument("group", metavar="GROUP", help="as `incidents` shows it")


def ask(options: argparse.Namespace) -> int:
    body = {"confirm": options.yes} if options.verb == "cleanup" else None
    client, path = client_of(options), f"/api/instance/{options.id}/{options.verb}"
    found = with_progress(
        f"{options.verb} {options.id}",
        lambda: client.request("POST", path, body=body, seconds=SECONDS).json(),
        lambda: _step_now(client, options.id),
    )
    if wants_json(options):
        print_json(found)
    else:
        print(f"{options.id} {_how(options.id, found)}")
    return 0 if found["healthy"] else 1


def _step_now(client: Client, id: str) -> str:
    try:
        repair = client.get(f"/api/instance/{id}/details")["repair"]
    except WaError:
        return ""  # the answer of the repair itself will say it
    if repair is None or repair["ending"] or repair["step"] == "none":
        return ""
    return f", {repair['step'].replace('_', ' ')}, try {repair['tries']}"


def _how(id: str, found: dict[str, Any]) -> str:
    if found["cleaned"] and found["healthy"]:
        return "shows a new code to scan (the trash has its old session)"
    if found["recovered"]:
        return "was repaired"
    if found["healthy"]:
        return "is well"
    ending = found["ending"].replace("_", " ")
    return f"is not well: {ending}: {found['sentence']}; more: wa-agent why {id}"


def repair(options: argparse.Namespace) -> int:
    client = client_of(options)
    if options.stats:
        return _show_statistics(client, options)
    if options.id is None:
        raise InvalidRequest("cannot repair: say all, an instance, or --stats", field="id")
    every = list(every_instance(client, {}))
    if options.id != "all":
        wanted = instance_or_refuse(options.id)
        every = [client.get(f"/api/instance/{wanted}")]
    done = repair_all(client, every, options)
    if wants_json(options):
        print_json([one.shown for one in done])
    elif not done:
        print("nothing needs a repair")
    else:
        print_table(("ID", "HEALTH", "WHY", "RESULT"), [one.row for one in done])
    return 0 if all(one.good for one in done) else 1


def instance_or_refuse(text: str) -> str:
    try:
        return instance_id(text)
    except argparse.ArgumentTypeError as error:
        raise InvalidRequest(str(error), field="id") from None


def _show_statistics(client: Client, options: argparse.Namespace) -> int:
    found = client.get("/api/repairs/statistics")
    if wants_json(options):
        print_json(found)
        return 0
    rate = found["success_rate"]
    print_pairs(
        {
            "checked": found["checked"],
            "mean time of a check": _milliseconds(found["mean_check_seconds"]),
            "repaired": found["repaired"],
            "cleaned": found["cleaned"],
            "failed": found["failed"],
            "mean time to repair": duration(found["mean_seconds_to_repair"]),
            "success rate": "-" if rate is None else f"{rate:.0%}",
            "asked for by hand": found["interventions"]["asked"],
            "ended needing a person": found["interventions"]["needed"],
        }
    )
    if found["steps"]:
        print_table(
            ("STEP", "DONE", "FAILED", "SECONDS"),
            [
                (name, one["done"], one["failed"], f"{one['seconds']:.1f}")
                for name, one in found["steps"].items()
            ],
        )
    return 0


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def set_up(options: argparse.Namespace) -> int:
    client = client_of(options)
    body = {"name": options.title or options.id, "instanceName": options.id}
    if options.engine:
        body["engine"] = options.engine
    body |= place_of(options)
    path = "/api/v1/whatsapp/setup"
    found = with_progress(
        f"setting up {options.id}",
        lambda: client.request("POST", path, body=body, seconds=SECONDS).json(),
        lambda: _step_now(client, options.id),
    )
    if wants_json(options):
        print_json(found)
    elif found["qr"] is None:
        print(f"{options.id} is connected")
    else:
        from agent.cli.sessions.qr import draw_code

        print(draw_code(client, options.id), end="")
        print(f"scan with WhatsApp: {options.id}")
    return 0


def incidents(options: argparse.Namespace) -> int:
    found = client_of(options).get("/api/incidents")["incidents"]
    print_list(
        options,
        found,
        ("GROUP", "SINCE", "WHAT", "FIRST TO TRY", "TRIES"),
        lambda one: (
            one["group"],
            moment(one["since"]),
            one["sentence"],
            one["canary"] or "-",
            one["tries"],
        ),
        nothing="no incidents",
    )
    return 0


def release(options: argparse.Namespace) -> int:
    found = client_of(options).post(f"/api/incidents/{quote(options.group)}/release")
    if wants_json(options):
        print_json(found)
    else:
        print(f"{found['released']} is released: its instances try again")
    return 0
