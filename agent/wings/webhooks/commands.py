"""Webhooks: where they send events, how many wait, and a try by hand."""

import argparse

from agent.cli.command import Subparsers, add_command, client_of, name_of_a
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.show import clean, moment


def add(commands: Subparsers) -> None:
    summary = "list the webhooks and their waiting events"
    parser = add_command(commands, "webhooks", list_webhooks, summary)
    among = parser.add_subparsers(metavar="COMMAND")
    parser = add_command(among, "list", list_webhooks, summary)
    for name, run, summary in (
        (
            "test",
            test,
            "send a test event now and print the answer; exit status 1 if it was refused",
        ),
        ("retry", retry, "close a webhook's circuit and send now"),
    ):
        parser = add_command(among, name, run, summary, "ops")
        name_type = name_of_a("webhook")
        parser.add_argument("webhook", metavar="WEBHOOK", type=name_type, help="the webhook's name")


def list_webhooks(options: argparse.Namespace) -> int:
    return print_list(
        options,
        client_of(options).get("/api/webhooks")["webhooks"],
        ("NAME", "URL", "STATE", "CIRCUIT", "WAITING", "OLDEST", "GIVEN UP", "LAST PROBLEM"),
        lambda webhook: (
            webhook["name"],
            webhook["url"],
            webhook["state"],
            webhook["circuit"],
            webhook["waiting"],
            moment(webhook["oldest"]),
            webhook["dead"],
            webhook["problem"] or "-",
        ),
        nothing="no webhooks: [[webhook]] in agent.toml names them",
    )


def test(options: argparse.Namespace) -> int:
    trial = client_of(options).post(f"/api/webhooks/{options.webhook}/test")
    verdict = "taken" if trial["delivered"] else "not taken"
    reply = f"it answered {trial['status']}" if trial["status"] else trial["problem"]
    return print_answer(
        options,
        trial,
        f"{verdict}: {clean(reply)}, in {trial['seconds']:.3f} s",
        f"it said: {clean(trial['said'])}" if trial["said"] else "",
        good=trial["delivered"],
    )


def retry(options: argparse.Namespace) -> int:
    answer = client_of(options).post(f"/api/webhooks/{options.webhook}/retry")
    return print_answer(options, answer, f"{options.webhook} is tried now")
