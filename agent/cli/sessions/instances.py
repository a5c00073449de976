"""Instances: create, list, show, start, stop and delete them."""

import argparse
import json
import sys
from typing import Any

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, add_instance_command, client_of, wants_json
from agent.cli.sessions.pair import print_invitation
from agent.cli.sessions.passkey import add_confirm, ask_twice
from agent.cli.sessions.waiting import add_wait, wait_until_connected
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.machine_words import age_words, in_fleet, stored_lines
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import clean, duration, mebibytes, moment, next_try, pair_lines
from agent.errors import InvalidRequest

_REMOTE_SECONDS = 240.0
"""The agent gives a server 150 to delete a session."""

_INTENTS = (
    ("enable", "run an instance, now and after every boot", "enabled"),
    ("disable", "stop an instance, now and after every boot", "disabled"),
    ("start", "run an instance until the next boot", "will be started"),
    ("stop", "stop an instance until the next start or boot", "will be stopped"),
    ("restart", "restart an instance's worker", "will be restarted"),
    ("logout", "end an instance's pairing; a person must scan again", "is being logged out"),
)


def add(commands: Subparsers) -> None:
    summary = "create an instance"
    parser = add_instance_command(commands, "create", create, summary, "--engine sandbox")
    parser.add_argument("--engine", required=True, help="engine that connects it to WhatsApp")
    add_place(parser)
    parser.add_argument("--on", metavar="MACHINE", help="in a fleet: the machine that it starts on")
    parser.add_argument(
        "--label",
        action="append",
        metavar="NAME=VALUE",
        help="in a fleet: a label that its machine must have; may be repeated",
    )
    parser.add_argument(
        "--failover",
        choices=("wait", "newest"),
        help="in a fleet: what becomes of it when its machine is lost; default: as the engine is",
    )
    parser.add_argument("--disabled", action="store_true", help="create it without running it")
    parser.add_argument(
        "--invite",
        action="store_true",
        help="engine web: create it, disabled, and print the line with which a person pairs it at"
        " a desk",
    )
    add_settings(parser)
    add_wait(parser)

    summary = "list the instances"
    parser = add_command(commands, "list", list_instances, summary, "--status CONNECTED")
    parser.add_argument("--status", action="append", help="only this status")
    parser.add_argument("--verdict", action="append", help="only this verdict")
    parser.add_argument("--engine", help="only this engine")
    parser.add_argument("--backend", metavar="NAME", help="only instances on this backend")
    parser.add_argument("--machine", metavar="NAME", help="only instances on this machine")
    parser.add_argument(
        "--enabled", choices=("true", "false"), help="only enabled or only disabled instances"
    )
    parser.add_argument("--ids", action="store_true", help="print only the ids")

    add_instance_command(commands, "show", show, "show everything about an instance")
    summary = "change an instance's settings"
    add_settings(add_instance_command(commands, "settings", settings, summary, "--set scan=manual"))

    for name, summary, done in _INTENTS:
        parser = add_instance_command(commands, name, intend, summary)
        parser.set_defaults(verb=name, done=done)
        if name in ("enable", "start", "restart"):
            add_wait(parser)
        if name == "logout":
            parser.add_argument("--yes", action="store_true", help="confirm that the pairing ends")
            add_confirm(parser)

    summary = "retire an instance's session and remove the instance; a backend keeps its session"
    parser = add_instance_command(commands, "delete", delete, summary)
    parser.add_argument(
        "--remote", action="store_true", help="also delete its session on the backend, for good"
    )
    parser.add_argument(
        "--confirm", metavar="WORDS", help="for --remote: 'delete REMOTE', skips the question"
    )
    add_confirm(parser)


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


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, value = _pair(pair, "set")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _pair(text: str, field: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name:
        raise InvalidRequest(f"cannot use {text!r}: it must be NAME=VALUE", field=field)
    return name, value


def setting_lines(settings: dict[str, Any]) -> list[str]:
    return pair_lines({name: json.dumps(value) for name, value in settings.items()})


def create(options: argparse.Namespace) -> int:
    client = client_of(options)
    body = {
        "id": options.id,
        "engine": options.engine,
        # Until a desk has paired it, its browser would show a code that is not wanted.
        "enabled": not (options.disabled or options.invite),
        "settings": parse_settings(options.set),
        **place_of(options),
        **_placement(options),
    }
    if options.invite and options.engine != "web":
        raise InvalidRequest("cannot invite a desk: a desk pairs engine web", field="invite")
    instance = client.post("/api/instance", body)
    if options.invite:
        return print_invitation(options, client)
    done = "created, disabled" if options.disabled else "created"
    return _wait_and_print(client, options, instance, done)


def _placement(options: argparse.Namespace) -> dict[str, Any]:
    """Only what was given: without a fleet the agent refuses each of them."""
    labels = dict(_pair(text, "label") for text in options.label or ())
    given = {"on": options.on, "labels": labels, "failover": options.failover}
    return {name: value for name, value in given.items() if value}


def intend(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}/{options.verb}"
    if options.verb == "logout":
        confirm = {"confirm": options.yes}
        instance = ask_twice(options, lambda more: client.post(path, confirm | more))
    else:
        instance = client.post(path)
    return _wait_and_print(client, options, instance, options.done)


def _wait_and_print(
    client: Client, options: argparse.Namespace, instance: dict[str, Any], done: str
) -> int:
    if stored := stored_lines(instance):
        return print_answer(options, instance, *stored)
    if getattr(options, "wait", None) is not None:
        instance = wait_until_connected(client, options.id, options.wait)
        done = "is connected"
    hold = clean(instance["hold_sentence"])
    waits = f"it waits: {hold} (wa-agent why {options.id})" if instance["hold"] else ""
    return print_answer(options, instance, f"{options.id} {done}", waits)


def list_instances(options: argparse.Namespace) -> int:
    names = ("status", "verdict", "engine", "backend", "enabled", "machine")
    query = {name: getattr(options, name) for name in names if getattr(options, name)}
    instances = list(client_of(options).instances(**query))
    many = in_fleet(instances)
    return print_list(
        options,
        instances,
        (
            "ID",
            *(("MACHINE",) if many else ()),
            "ENGINE",
            "STATUS",
            "HEALTH",
            "ENABLED",
            "UPTIME",
            "MEMORY",
            "WHY",
        ),
        lambda instance: (
            instance["id"],
            *((instance["machine"],) if many else ()),
            instance["engine"],
            instance["connection_status"],
            instance["health"]["verdict"],
            _enabled(instance),
            duration(instance["uptime_seconds"]),
            mebibytes(instance["memory_bytes"]),
            "; ".join(
                filter(None, (age_words(instance), instance["sentence"], next_try(instance)))
            ),
        ),
        nothing="no instances",
        bare="id" if options.ids else "",
    )


def _enabled(instance: dict[str, Any]) -> str:
    word, override = "yes" if instance["enabled"] else "no", instance["override"]
    return word if override == "none" else f"{word}, {override}"


def show(options: argparse.Namespace) -> int:
    details = client_of(options).get(f"/api/instance/{options.id}/details")
    if details.get("owner_away"):
        return print_answer(options, details, *pair_lines(_last_told(details)))
    lines = pair_lines(_pairs(details))
    for event in reversed(details["events"]):
        lines += pair_lines({moment(event["time"]): f"[{event['kind']}] {event['sentence']}"})
    return print_answer(options, details, *lines)


def _pairs(details: dict[str, Any]) -> dict[str, object]:
    health, unit, first = details["health"], details["unit"], details["first_messages"]
    place = {"backend": details["backend"], "remote": details["remote"]}
    return {
        "id": details["id"],
        **_owner(details),
        "engine": details["engine"],
        **(place if details["backend"] else {}),
        "enabled": _enabled(details),
        "status": f"{details['connection_status']} since {moment(details['since'])}",
        "why": details["sentence"] or "-",
        "health": f"{health['verdict']}: {health['sentence']}",
        "account": details["account"] or ("paired" if details["paired"] else "not paired"),
        **({"passkey": "needed to link the account"} if details["needs_passkey"] else {}),
        **({"first messages": first["sentence"]} if first else {}),
        "uptime": duration(details["uptime_seconds"]),
        "worker": f"{unit['state']}, pid {unit['main_pid'] or '-'}, {unit['status_text']}",
        "memory": mebibytes(details["memory_bytes"]),
        "attempts": details["attempts"],
        "next attempt": moment(details["next_attempt"]),
        "restarts": _counts(details["restarts_by_reason"]),
        "reconnects": _counts(details["reconnects_by_reason"]),
        "messages": _counts(details["messages"]),
        "settings": json.dumps(details["settings"]),
        "created": moment(details["created"]),
    }


def _last_told(view: dict[str, Any]) -> dict[str, object]:
    """Of a session whose machine does not answer."""
    return {
        "id": view["id"],
        "machine": f"{view['machine']}, which does not answer",
        "told": age_words(view) or "a moment ago",
        "engine": view["engine"],
        "enabled": _enabled(view),
        "status": view["connection_status"],
        "why": view["sentence"] or "-",
        "health": f"{view['health']['verdict']}: {view['health']['sentence']}",
        "account": view["account"] or ("paired" if view["paired"] else "not paired"),
    }


def _owner(details: dict[str, Any]) -> dict[str, str]:
    if not in_fleet([details]):
        return {}
    return {"machine": ", ".join(filter(None, (details["machine"], age_words(details))))}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def settings(options: argparse.Namespace) -> int:
    client = client_of(options)
    present = client.get(f"/api/instance/{options.id}/details")["settings"]
    changes = parse_settings(options.set)
    if changes:
        # null removes a setting, so that the engine's default is used again.
        merged = {k: v for k, v in {**present, **changes}.items() if v is not None}
        path = f"/api/instance/{options.id}"
        answer = client.request("PATCH", path, body={"settings": merged}).json()
        if stored := stored_lines(answer):
            return print_answer(options, answer, *stored)
        present = answer["settings"]
    return print_answer(options, present, *setting_lines(present))


def delete(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}"
    if not options.remote:
        answer = ask_twice(
            options, lambda more: client.request("DELETE", path, body=more or None)
        ).json()
    else:
        words = {"confirm": _confirmed(client, options)}
        query, seconds = {"remote": "true"}, _REMOTE_SECONDS
        answer = ask_twice(
            options,
            lambda more: with_progress(
                f"deleting {options.id} and its session on the backend",
                lambda: client.request(
                    "DELETE", path, query=query, body=words | more, seconds=seconds
                ),
                quiet=wants_json(options),
            ),
        ).json()
    lines = [f"{options.id} deleted"]
    if "remote" in answer:
        state = "deleted too" if answer["remote_deleted"] else "untouched"
        lines.append(f"{answer['remote']} on {answer['backend']} is {state}")
    if answer["trash"]:
        lines.append(f"its session can come back: wa-agent trash restore {answer['trash']}")
    return print_answer(options, answer, *lines)


def _confirmed(client: Client, options: argparse.Namespace) -> str:
    """The words that confirm the end of a pairing: an option, or typed at the terminal."""
    if options.confirm is not None:
        return str(options.confirm)
    instance = client.get(f"/api/instance/{options.id}")
    words = f"delete {instance['remote']}"
    if not instance["backend"] or not sys.stdin.isatty():
        return ""  # the agent refuses, and its error tells the words
    print(f"{clean(instance['remote'])} on {instance['backend']} will be deleted for good.")
    try:
        return input(f"To go on, type: {clean(words)}\n> ").strip()
    except EOFError:
        return ""
