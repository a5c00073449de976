"""The engine's settings of an instance: `--set`, and `wa-agent settings`."""

import argparse
import json
from typing import Any

from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import pair_lines
from agent.errors import InvalidRequest

RUNNING = frozenset({"active", "activating"})


def add(commands: Subparsers) -> None:
    summary = "change an instance's settings"
    add_settings(add_instance_command(commands, "settings", settings, summary, "--set scan=manual"))


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an engine's setting; the value is JSON or plain text",
    )


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, value = name_and_value(pair, "set")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def name_and_value(text: str, field: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name:
        raise InvalidRequest(f"cannot use {text!r}: it must be NAME=VALUE", field=field)
    return name, value


def setting_lines(settings: dict[str, Any]) -> list[str]:
    return pair_lines({name: json.dumps(value) for name, value in settings.items()})


def settings(options: argparse.Namespace) -> int:
    client = client_of(options)
    present = client.get(f"/api/instance/{options.id}/details")["settings"]
    changes = parse_settings(options.set)
    if changes:
        # null removes a setting, so that the engine's default is used again.
        merged = {k: v for k, v in {**present, **changes}.items() if v is not None}
        path = f"/api/instance/{options.id}"
        answer = client.request("PATCH", path, body={"settings": merged}).json()
        present = answer["settings"]
        if answer["worker"] in RUNNING:
            note = (
                f"{options.id} runs with its former settings until: wa-agent restart {options.id}"
            )
            return print_answer(options, present, *setting_lines(present), note)
    return print_answer(options, present, *setting_lines(present))
