"""`create` and `settings`: an instance with its engine's settings."""

import argparse
import json
from typing import Any

from agent.cli.command import Subparsers, Words, add_instance_command, client_of
from agent.cli.switch import WAIT, wait_and_print
from agent.cli.terminal import pair_lines, print_answer
from agent.errors import InvalidRequest

RUNNING = frozenset({"active", "activating"})
SET: Words = {
    "--set NAME=VALUE": (
        "an engine's setting; the value is JSON or plain text",
        {"action": "append", "default": []},
    )
}
PLACE: Words = {
    "--backend NAME": "the backend that runs its session",
    "--remote NAME": "its name on the backend; default: the id",
}


def add(commands: Subparsers) -> None:
    words: Words = {
        "--engine ENGINE": ("engine that connects it to WhatsApp", {"required": True}),
        **PLACE,
        "--disabled": "create it without running it",
        "--program NAME": "the [[program]] of agent.toml that runs as it",
        **SET,
        **WAIT,
    }
    example = "--engine sandbox"
    add_instance_command(commands, "create", create, "create an instance", example, words=words)
    summary, example = "change an instance's settings", "--set scan=manual"
    add_instance_command(commands, "settings", settings, summary, example, words=SET)


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name:
            raise InvalidRequest(f"cannot use {pair!r}: it must be NAME=VALUE", field="set")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def place_of(options: argparse.Namespace) -> dict[str, str]:
    return {k: v for k in ("backend", "remote") if (v := getattr(options, k)) is not None}


def create(options: argparse.Namespace) -> int:
    program = [] if options.program is None else [f"program={options.program}"]
    body = {
        "id": options.id,
        "engine": options.engine,
        "enabled": not options.disabled,
        "settings": parse_settings([*options.set, *program]),
        **place_of(options),
    }
    client = client_of(options)
    done = "created, disabled" if options.disabled else "created"
    return wait_and_print(client, options, client.post("/api/instance", body), done)


def settings(options: argparse.Namespace) -> int:
    client, note = client_of(options), ""
    present = client.get(f"/api/instance/{options.id}/details")["settings"]
    if changes := parse_settings(options.set):
        # null removes a setting, so that the engine's default is used again.
        merged = {k: v for k, v in {**present, **changes}.items() if v is not None}
        path = f"/api/instance/{options.id}"
        answer = client.request("PATCH", path, body={"settings": merged}).json()
        present = answer["settings"]
        if answer["worker"] in RUNNING:
            cure = f"wa-agent restart {options.id}"
            note = f"{options.id} runs with its former settings until: {cure}"
    lines = pair_lines({name: json.dumps(value) for name, value in present.items()})
    return print_answer(options, present, *lines, note)
