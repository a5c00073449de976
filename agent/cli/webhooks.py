"""Webhooks: where events are sent, how far each has come, and a try by hand."""

import argparse
from typing import Any

from agent.cli.command import Subparsers, add_command, client_of, wants_json
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.show import clean, moment, print_json
from agent.core.model import parse_instance_id
from agent.errors import InvalidRequest


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands, "webhooks", list_webhooks, "list the webhooks and their waiting events",
        "wa-agent webhooks",
    )  # fmt: skip
    among = parser.add_subparsers(metavar="COMMAND")
    parser = add_command(
        among, "list", list_webhooks, "list the webhooks and their waiting events",
        "wa-agent webhooks list",
    )  # fmt: skip
    parser.add_argument("--names", action="store_true", help="print only the names")
    _add(
        among, "test", test,
        "send a test event now and print the answer; exit status 1 if it was refused",
        "wa-agent webhooks test ops",
    )  # fmt: skip
    _add(
        among, "dead", dead, "list the events that a webhook's target refused for good",
        "wa-agent webhooks dead ops",
    )  # fmt: skip
    _add(
        among, "retry", retry, "close a webhook's circuit and send now, refused events included",
        "wa-agent webhooks retry ops",
    )  # fmt: skip


def _add(among: Subparsers, name: str, run: Any, summary: str, example: str) -> None:
    parser = add_command(among, name, run, summary, example)
    parser.add_argument("webhook", metavar="WEBHOOK", type=webhook_name, help="the webhook's name")


def webhook_name(text: str) -> str:
    try:
        return parse_instance_id(text)
    except InvalidRequest:
        raise argparse.ArgumentTypeError(
            f"cannot use {text!r:.80} as the name of a webhook"
        ) from None


def list_webhooks(options: argparse.Namespace) -> int:
    found = client_of(options).get("/api/webhooks")["webhooks"]
    print_list(
        options,
        found,
        ("NAME", "URL", "STATE", "CIRCUIT", "WAITING", "OLDEST", "DEAD", "LAST PROBLEM"),
        _row,
        nothing="no webhooks: [[webhook]] in agent.toml names them",
        bare="name" if getattr(options, "names", False) else "",
    )
    return 0


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        one["name"],
        one["url"],
        one["state"],
        one["circuit"],
        one["waiting"],
        moment(one["oldest"]),
        one["dead"],
        one["problem"] or "-",
    )


def test(options: argparse.Namespace) -> int:
    found = client_of(options).post(f"/api/webhooks/{options.webhook}/test")
    if wants_json(options):
        print_json(found)
    else:
        came = f"it answered {found['status']}" if found["status"] else found["problem"]
        verdict = "taken" if found["delivered"] else "not taken"
        print(f"{verdict}: {clean(came)}, in {found['seconds']:.3f} s")
        if found["said"]:
            print(f"it said: {clean(found['said'])}")
    return 0 if found["delivered"] else 1


def dead(options: argparse.Namespace) -> int:
    found = client_of(options).get(f"/api/webhooks/{options.webhook}/dead")["dead"]
    print_list(
        options,
        found,
        ("ID", "TIME", "KIND", "INSTANCE", "PUT ASIDE", "WHY"),
        lambda one: (
            one["id"],
            moment(one["time"]),
            one["kind"],
            one["instance"] or "-",
            moment(one["put_aside"]),
            one["problem"],
        ),
        nothing=f"{options.webhook} refused no event for good",
    )
    return 0


def retry(options: argparse.Namespace) -> int:
    found = client_of(options).post(f"/api/webhooks/{options.webhook}/retry")
    if wants_json(options):
        print_json(found)
    else:
        again = f", and {found['dead']} refused events again" if found["dead"] else ""
        print(f"{options.webhook} is tried now{again}")
    return 0
