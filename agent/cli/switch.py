"""An instance: `create`, `settings`, `enable`, `disable`, `start`, `stop`, `restart`, `logout`,
`delete` and `passkey`. `--wait` follows it until it is connected, or until only a person can
help."""

import argparse
import json
import time
from typing import Any

from agent.cli.client import Client
from agent.cli.command import Subparsers, Words, add_instance_command, client_of, given
from agent.cli.terminal import clean, pair_lines, print_answer, progress
from agent.core.reasons import reason_of
from agent.errors import InvalidRequest, Refused, TryLater

SETTLED = 5.0
"""Seconds: right after a start an instance may still show the reason of its last run, and the
sandbox a code that its own phone scans."""
LONGEST_WAIT = 300
TO_THE_END = f"?wait={LONGEST_WAIT}"
_REMOTE_SECONDS = 240.0
"""The agent gives a server 150 to delete a session."""
WAIT: Words = {
    "--wait SECONDS": (
        "wait until it is connected; exit status 75 when late, or when a person must scan",
        {"type": float},
    )
}
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
CONFIRM: Words = {
    "--confirm-passkey ID": "the id once more, where the account needs a passkey to link again"
}
_YES: Words = {"--yes": "confirm that the pairing ends"}
_LOGOUT = "end an instance's pairing; a person must scan again"
_INTENTS: tuple[tuple[str, str, str, Words], ...] = (
    ("enable", "run an instance, now and after every boot", "enabled", WAIT),
    ("disable", "stop an instance, now and after every boot", "disabled", {}),
    ("start", "run an instance until the next boot", "will be started", WAIT),
    ("stop", "stop an instance until the next start or boot", "will be stopped", {}),
    ("restart", "restart an instance's worker", "will be restarted", WAIT),
    ("logout", _LOGOUT, "is being logged out", {**_YES, **CONFIRM}),
)


def add(commands: Subparsers) -> None:
    words: Words = {
        "--engine ENGINE": ("engine that connects it to WhatsApp", {"required": True}),
        **PLACE,
        "--disabled": "create it without running it",
        "--program NAME": "the [[program]] of agent.toml that runs as it",
        **SET,
        **WAIT,
    }
    summary, example = "create an instance", "--engine sandbox"
    add_instance_command(commands, "create", create, summary, example, words=words)
    summary, example = "change an instance's settings", "--set scan=manual"
    add_instance_command(commands, "settings", settings, summary, example, words=SET)
    for name, summary, done, more in _INTENTS:
        parser = add_instance_command(commands, name, intend, summary, words=more)
        parser.set_defaults(verb=name, done=done)
    words = {
        "--remote": "also delete its session on the backend, for good",
        "--confirm WORDS": "for --remote: the words 'delete REMOTE'",
        **CONFIRM,
    }
    add_instance_command(commands, "delete", delete, words=words)
    words = {
        "word=WORD": (
            "needed: no automatic step ends its pairing, and its end needs --confirm-passkey;"
            " or: not-needed",
            {"choices": ("needed", "not-needed")},
        )
    }
    add_instance_command(commands, "passkey", mark, example="needed", words=words)


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


def create(options: argparse.Namespace) -> int:
    program = [] if options.program is None else [f"program={options.program}"]
    body = {
        "id": options.id,
        "engine": options.engine,
        "enabled": not options.disabled,
        "settings": parse_settings([*options.set, *program]),
        **given({"backend": options.backend, "remote": options.remote}),
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
        answer = client.request("PATCH", path, {"settings": merged})
        present = answer["settings"]
        if answer["worker"] in ("active", "activating"):
            cure = f"wa-agent restart {options.id}"
            note = f"{options.id} runs with its former settings until: {cure}"
    lines = pair_lines({name: json.dumps(value) for name, value in present.items()})
    return print_answer(options, present, *lines, note)


def intend(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}/{options.verb}"
    if options.verb == "logout":
        body = {"confirm": options.yes, **passkey_of(options)}
        instance = client.post(path + TO_THE_END, body)
    else:
        instance = client.post(path)
    return wait_and_print(client, options, instance, options.done)


def mark(options: argparse.Namespace) -> int:
    """Note whether an instance's account needs a passkey to link."""
    needed = options.word == "needed"
    path = f"/api/instance/{options.id}/passkey"
    instance = client_of(options).request("PUT", path, {"needed": needed})
    word = "needs a passkey" if needed else "needs no passkey"
    return print_answer(options, instance, f"{options.id}: its account {word} to link")


def passkey_of(options: argparse.Namespace) -> dict[str, Any]:
    """The field of a request that may end a pairing whose account needs a passkey."""
    id = options.confirm_passkey
    return {"confirm_passkey": id} if id else {}


def delete(options: argparse.Namespace) -> int:
    """Retire an instance's session and remove the instance; a backend keeps its session."""
    client, path = client_of(options), f"/api/instance/{options.id}?wait={LONGEST_WAIT}"
    body = passkey_of(options)
    if options.remote:
        path, body["confirm"] = f"{path}&remote=true", options.confirm or ""
    with progress(options, f"deleting {options.id}"):
        answer = client.request("DELETE", path, body or None, seconds=_REMOTE_SECONDS)
    lines = [f"{options.id} deleted"]
    if "remote" in answer:
        state = "being made again" if answer["remote_renewing"] else "untouched"
        state = "deleted too" if answer["remote_deleted"] else state
        lines.append(f"{answer['remote']} on {answer['backend']} is {state}")
    if answer.get("keys_ended"):
        lines.append(f"keys that open it no more: {', '.join(map(clean, answer['keys_ended']))}")
    if dropped := answer.get("messages_dropped"):
        noun = "message that waits" if dropped == 1 else "messages that wait"
        lines.append(f"{dropped} {noun} to be sent went with it, for good")
    if answer["trash"]:
        lines.append(f"its session can come back: wa-agent trash restore {answer['trash']}")
    return print_answer(options, answer, *lines)


def wait_and_print(
    client: Client, options: argparse.Namespace, instance: dict[str, Any], done: str
) -> int:
    if getattr(options, "wait", None) is not None:
        instance = wait_until_connected(client, options.id, options.wait)
        done = "is connected"
    hold = clean(instance["wait_sentence"])
    waits = f"it waits: {hold} (wa-agent why {options.id})" if instance["wait_reason"] else ""
    return print_answer(options, instance, f"{options.id} {done}", waits)


def wait_until_connected(client: Client, id: str, seconds: float) -> dict[str, Any]:
    now = time.monotonic()
    deadline, in_vain_at = now + seconds, now + SETTLED
    while True:
        instance = client.get(f"/api/instance/{id}")
        status, sentence = instance["connection_status"], instance["sentence"]
        now, shows_code = time.monotonic(), status == "QR_REQUIRED"
        down, reason = status in ("DISCONNECTED", "AUTH_FAILURE"), instance["reason"]
        if status == "CONNECTED":
            return instance
        # Where it is down for a hopeless reason, only a person helps.
        if not shows_code and not (down and reason and reason_of(reason).hopeless):
            in_vain_at = now + SETTLED
        if now >= in_vain_at:
            if shows_code:
                raise TryLater(f"a person must scan the code of {id}: wa-agent qr {id} --watch")
            raise Refused(f"cannot wait for {id}: a person must help, {sentence}")
        if now >= deadline:
            raise TryLater(f"cannot wait longer for {id}: it is {status}, {sentence}")
        time.sleep(0.2)
