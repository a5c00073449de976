"""Instances: create, list, show, start, stop and delete them."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, add_id, client_of, wants_json
from agent.cli.sessions.pair import print_invitation
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import (
    clean,
    duration,
    mebibytes,
    moment,
    next_try,
    print_json,
    print_pairs,
)
from agent.core.reasons import reason_of
from agent.errors import InvalidRequest, Refused, TryLater

_LONG = 240.0
SETTLED = 5.0
"""Seconds: what an instance says right after a start may be the word of its last run."""
"""Seconds: the agent gives a server 150 to delete a session."""

_INTENTS = (
    ("enable", "run an instance, now and after every boot", "enabled"),
    ("disable", "stop an instance, now and after every boot", "disabled"),
    ("start", "run an instance until the next boot", "will be started"),
    ("stop", "stop an instance until the next start or boot", "will be stopped"),
    ("restart", "restart an instance's worker", "will be restarted"),
    ("logout", "end an instance's pairing; a person must scan again", "is being logged out"),
)


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands, "create", create, "create an instance", "wa-agent create sales --engine sandbox"
    )
    add_id(parser)
    parser.add_argument("--engine", required=True, help="engine that connects it to WhatsApp")
    add_place(parser)
    parser.add_argument("--disabled", action="store_true", help="create it without running it")
    parser.add_argument(
        "--invite",
        action="store_true",
        help="engine web: create it, disabled, and print the line with which a person pairs it at"
        " a desk",
    )
    add_settings(parser)
    _add_wait(parser)

    parser = add_command(
        commands, "list", list_instances, "list the instances", "wa-agent list --status CONNECTED"
    )
    parser.add_argument("--status", action="append", help="only this status")
    parser.add_argument("--verdict", action="append", help="only this verdict")
    parser.add_argument("--engine", help="only this engine")
    parser.add_argument("--backend", metavar="NAME", help="only instances on this backend")
    parser.add_argument(
        "--enabled", choices=("true", "false"), help="only enabled or only disabled instances"
    )
    parser.add_argument("--ids", action="store_true", help="print only the ids")

    parser = add_command(
        commands, "show", show, "show everything about an instance", "wa-agent show sales"
    )
    add_id(parser)
    parser = add_command(
        commands, "settings", settings, "change an instance's settings",
        "wa-agent settings sales --set scan=manual",
    )  # fmt: skip
    add_id(parser)
    add_settings(parser)

    for name, summary, done in _INTENTS:
        parser = add_command(commands, name, intend, summary, f"wa-agent {name} sales")
        add_id(parser)
        parser.set_defaults(verb=name, done=done)
        if name in ("enable", "start", "restart"):
            _add_wait(parser)
        if name == "logout":
            parser.add_argument("--yes", action="store_true", help="confirm that the pairing ends")
    parser = add_command(
        commands,
        "delete",
        delete,
        "retire an instance's session and remove the instance; a backend keeps its session",
        "wa-agent delete sales",
    )
    add_id(parser)
    parser.add_argument(
        "--remote", action="store_true", help="also delete its session on the backend, for good"
    )
    parser.add_argument(
        "--confirm", metavar="WORDS", help="for --remote: 'delete REMOTE', skips the question"
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", metavar="NAME", help="the backend that runs its session")
    parser.add_argument("--remote", metavar="NAME", help="its name on the backend; default: the id")


def place_of(options: argparse.Namespace) -> dict[str, str]:
    return {k: v for k in ("backend", "remote") if (v := getattr(options, k)) is not None}


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an engine's setting; the value is JSON or plain text",
    )


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="wait until it is connected; exit status 75 when late",
    )


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name:
            raise InvalidRequest(f"cannot use {pair!r}: it must be NAME=VALUE", field="set")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def create(options: argparse.Namespace) -> int:
    client = client_of(options)
    body = {
        "id": options.id,
        "engine": options.engine,
        # Until a desk has paired it, its browser would show a code that is not wanted.
        "enabled": not (options.disabled or options.invite),
        "settings": parse_settings(options.set),
        **place_of(options),
    }
    made = client.post("/api/instance", body)
    if options.invite:
        return print_invitation(options, client)
    return _tell(client, options, made, "created" + (", disabled" if options.disabled else ""))


def intend(options: argparse.Namespace) -> int:
    client = client_of(options)
    body = {"confirm": options.yes} if options.verb == "logout" else None
    found = client.post(f"/api/instance/{options.id}/{options.verb}", body)
    return _tell(client, options, found, options.done)


def _tell(client: Client, options: argparse.Namespace, found: dict[str, Any], done: str) -> int:
    if getattr(options, "wait", None) is not None:
        found = wait_until_connected(client, options.id, options.wait)
        done = "is connected"
    if wants_json(options):
        print_json(found)
    else:
        print(f"{options.id} {done}")
        if found["hold"]:
            print(f"it waits: {clean(found['hold_sentence'])} (wa-agent why {options.id})")
    return 0


def wait_until_connected(client: Client, id: str, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    hopeless_since: float | None = None
    while True:
        found = client.get(f"/api/instance/{id}")
        if found["connection_status"] == "CONNECTED":
            return found
        if not _only_a_person_helps(found):
            hopeless_since = None
        elif hopeless_since is None:
            hopeless_since = time.monotonic()
        elif time.monotonic() - hopeless_since >= SETTLED:
            raise Refused(f"cannot wait for {id}: a person must help, {found['sentence']}")
        if time.monotonic() >= deadline:
            raise TryLater(
                f"cannot wait longer for {id}: it is {found['connection_status']},"
                f" {found['sentence']}"
            )
        time.sleep(0.2)


def _only_a_person_helps(found: dict[str, Any]) -> bool:
    """A code that waits for its scan does not count: the scan is what a person waits for."""
    down = found["connection_status"] in ("DISCONNECTED", "AUTH_FAILURE")
    return down and bool(found["reason"]) and reason_of(found["reason"]).hopeless


def every_instance(client: Client, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    page = client.get("/api/instances", {**query, "limit": 1000})
    while True:
        yield from page["instances"]
        if not page["next"]:
            return
        page = client.get("/api/instances", {**query, "limit": 1000, "after": page["next"]})


def list_instances(options: argparse.Namespace) -> int:
    names = ("status", "verdict", "engine", "backend", "enabled")
    query = {name: getattr(options, name) for name in names if getattr(options, name)}
    found = list(every_instance(client_of(options), query))
    print_list(
        options,
        found,
        ("ID", "ENGINE", "STATUS", "HEALTH", "ENABLED", "UPTIME", "MEMORY", "WHY"),
        lambda one: (
            one["id"],
            one["engine"],
            one["connection_status"],
            one["health"]["verdict"],
            _enabled(one),
            duration(one["uptime_seconds"]),
            mebibytes(one["memory_bytes"]),
            "; ".join(filter(None, (one["sentence"], next_try(one)))),
        ),
        nothing="no instances",
        bare="id" if options.ids else "",
    )
    return 0


def _enabled(one: dict[str, Any]) -> str:
    word = "yes" if one["enabled"] else "no"
    return word if one["override"] == "none" else f"{word}, {one['override']}"


def show(options: argparse.Namespace) -> int:
    found = client_of(options).get(f"/api/instance/{options.id}/details")
    if wants_json(options):
        print_json(found)
        return 0
    verdict, unit, first = found["health"], found["unit"], found["first_messages"]
    print_pairs(
        {
            "id": found["id"],
            "engine": found["engine"],
            **_place(found),
            "enabled": _enabled(found),
            "status": f"{found['connection_status']} since {moment(found['since'])}",
            "why": found["sentence"] or "-",
            "health": f"{verdict['verdict']}: {verdict['sentence']}",
            "account": found["account"] or ("paired" if found["paired"] else "not paired"),
            **({"first messages": first["sentence"]} if first else {}),
            "uptime": duration(found["uptime_seconds"]),
            "worker": f"{unit['state']}, pid {unit['main_pid'] or '-'}, {unit['status_text']}",
            "memory": mebibytes(found["memory_bytes"]),
            "attempts": found["attempts"],
            "next attempt": moment(found["next_attempt"]),
            "restarts": _counts(found["restarts_by_reason"]),
            "reconnects": _counts(found["reconnects_by_reason"]),
            "messages": _counts(found["messages"]),
            "settings": json.dumps(found["settings"]),
            "created": moment(found["created"]),
        }
    )
    for event in reversed(found["events"]):
        print_pairs({moment(event["time"]): f"[{event['kind']}] {event['sentence']}"})
    return 0


def _place(found: dict[str, Any]) -> dict[str, str]:
    if not found["backend"]:
        return {}
    return {"backend": found["backend"], "there": found["remote"]}


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in found.items() if count) or "none"


def settings(options: argparse.Namespace) -> int:
    client = client_of(options)
    present = client.get(f"/api/instance/{options.id}/details")["settings"]
    changes = parse_settings(options.set)
    if changes:
        # null takes a setting away, so that the engine's default holds again.
        merged = {k: v for k, v in {**present, **changes}.items() if v is not None}
        path = f"/api/instance/{options.id}"
        present = client.request("PATCH", path, body={"settings": merged}).json()["settings"]
    if wants_json(options):
        print_json(present)
    else:
        print_pairs({name: json.dumps(value) for name, value in present.items()})
    return 0


def delete(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}"
    if options.remote:
        body = {"confirm": _confirmed(client, options)}
        answer = with_progress(
            f"deleting {options.id} and its session on the backend",
            lambda: client.request(
                "DELETE", path, query={"remote": "true"}, body=body, seconds=_LONG
            ),
            lambda: "",
            quiet=wants_json(options),
        )
    else:
        answer = client.request("DELETE", path)
    found = answer.json()
    if wants_json(options):
        print_json(found)
    else:
        print(f"{options.id} deleted")
        if "remote" in found:
            state = "deleted too" if found["remote_deleted"] else "untouched"
            print(f"{found['remote']} on {found['backend']} is {state}")
        if found["trash"]:
            print(f"its session can come back: wa-agent trash restore {found['trash']}")
    return 0


def _confirmed(client: Client, options: argparse.Namespace) -> str:
    """The words that end a pairing: given, or typed by whoever sits there."""
    if options.confirm is not None:
        return str(options.confirm)
    found = client.get(f"/api/instance/{options.id}")
    words = f"delete {found['remote']}"
    if not found["backend"] or not sys.stdin.isatty():
        return ""  # the agent refuses, and says which words are wanted
    print(f"{clean(found['remote'])} on {found['backend']} will be deleted for good.")
    try:
        return input(f"To go on, type: {clean(words)}\n> ").strip()
    except EOFError:
        return ""
