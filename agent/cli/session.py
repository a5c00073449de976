"""A session: `create`, `settings`, `enable`, `disable`, `start`, `stop`, `restart`, `logout`,
`delete`, `passkey`; the code that links it and its page; its copies; `send`, where the API also
sends other kinds than text and files. `--wait` follows it until it is connected, or until only a
person can help."""

import argparse
import json
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

from agent.cli.client import LONGEST, AgentSaidNo, Client, check_target, open_source, whole_file
from agent.cli.command import (
    Subparsers,
    Words,
    add_command,
    add_group,
    add_instance_command,
    client_of,
    given,
)
from agent.cli.terminal import Columns, clean, list_of, moment, pair_lines, print_answer, progress
from agent.core.reasons import reason_of
from agent.errors import InvalidRequest, Refused, TryLater

SETTLED = 5.0
"""Seconds: right after a start an instance may still show the reason of its last run, and the
sandbox a code that its own phone scans."""
LONGEST_WAIT = 300
TO_THE_END = f"?wait={LONGEST_WAIT}"
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
_WAIT = 30
_LARGEST = 64 << 20
"""More bytes no api.media_limit lets through."""
_SEND: Words = {
    "TO": "a number or a chat's id",
    "[TEXT]": "the message, or the caption of the file; - reads stdin",
    "--file PATH": ("send a picture, a sound or a document", {"type": Path}),
    "--quote ID": "reply to that message",
    "--idempotency-key KEY": "send a message with this key only once",
    "--wait SECONDS": (
        f"seconds to wait until WhatsApp has it, default {_WAIT}; 0 = until it is kept",
        {"type": int, "default": _WAIT},
    ),
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
    add_instance_command(commands, "create", create, example="--engine sandbox", words=words)
    add_instance_command(commands, "settings", settings, example="--set scan=manual", words=SET)
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
    words = {
        "--watch": "follow the code until connected",
        "--for SECONDS": ("seconds to watch, default 300", {"type": float, "default": 300}),
    }
    add_instance_command(commands, "qr", show_qr, example="--watch", words=words)
    words, example = {"PHONE": "the account's number, with country code"}, "+4915112345678"
    add_instance_command(commands, "pairing-code", pairing_code, example=example, words=words)
    words = {
        "FILE": ("the picture to write: PNG, or JPEG if a PNG is too large", {"type": Path}),
        "--force": "replace the file",
    }
    add_instance_command(commands, "screenshot", screenshot, example="sales.png", words=words)
    example = "4915112345678 hello"
    add_instance_command(commands, "send", send, example=example, words=_SEND)
    add_instance_command(commands, "snapshot", snapshot)
    add_instance_command(commands, "snapshots", list_snapshots)
    words = {
        "NAME": "as `snapshots` shows it",
        "--force": "also replace a newer session or use a damaged snapshot",
    }
    add_instance_command(commands, "restore", restore, example="20260115T103045Z-12", words=words)

    parser = add_command(commands, "trash", list_trash)
    among = parser.add_subparsers(metavar="COMMAND", required=False)
    add_command(among, "list", list_trash)
    words = {"NAME": "as `trash list` shows it"}
    add_command(among, "restore", untrash, example="sales.20260115T103045Z-4", words=words)

    summary = "files and keys that repairs removed from a session on a backend"
    among = add_group(commands, "removed", summary, "list sales")
    add_instance_command(among, "list", list_removed)
    words = {"NAME": "as `removed list` shows it"}
    add_instance_command(among, "restore", put_back, example="20260115T103045Z", words=words)


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
    """Create an instance."""
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
    """Change an instance's settings."""
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
        body = given({"confirm": options.yes, "confirm_passkey": options.confirm_passkey})
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


def delete(options: argparse.Namespace) -> int:
    """Retire an instance's session and remove the instance; a backend keeps its session."""
    client, path = client_of(options), f"/api/instance/{options.id}?wait={LONGEST_WAIT}"
    body = given({"confirm_passkey": options.confirm_passkey})
    if options.remote:
        path, body["confirm"] = f"{path}&remote=true", options.confirm or ""
    with progress(options, f"deleting {options.id}"):
        answer = client.request("DELETE", path, body or None, seconds=LONGEST)
    lines = [f"{options.id} deleted"]
    if "remote" in answer:
        state = "being made again" if answer["remote_renewing"] else "untouched"
        state = "deleted too" if answer["remote_deleted"] else state
        lines.append(f"{clean(answer['remote'])} on {answer['backend']} is {state}")
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


def pairing_code(options: argparse.Namespace) -> int:
    """Get a code to type on the phone instead of a scan."""
    client, path = client_of(options), f"/api/instance/{options.id}/pairing-code{TO_THE_END}"
    code = client.post(path, {"phone": options.phone})
    how = "on the phone: linked devices, link with phone number"
    if code["expires_in"] is not None:  # not every engine knows
        how += f"; valid for {code['expires_in'] / 60:.0f} min"
    return print_answer(options, code, code["code"], how)


def screenshot(options: argparse.Namespace) -> int:
    """Take a picture of an instance's page, with its codes hidden."""
    check_target(options.file, force=options.force)
    path = f"/api/instance/{options.id}/screenshot{TO_THE_END}"
    with client_of(options).exchange("GET", path, None, {}, LONGEST_WAIT) as response:
        picture = response.read()
    with whole_file(options.file) as file:
        file.write(picture)
    written = {"file": str(options.file), "bytes": len(picture)}
    return print_answer(options, written, f"{options.file} written; it may show messages")


def show_qr(options: argparse.Namespace) -> int:
    """Show the code to scan."""
    client = client_of(options)
    if options.watch:
        return _watch(client, options.id, time.monotonic() + vars(options)["for"])
    if options.json:
        return print_answer(options, client.get(f"/api/instance/{options.id}/qr"))
    print(draw_code(client, options.id)[0], end="")
    return 0


def draw_code(client: Client, id: str) -> tuple[str, str]:
    """The code in this terminal's colours, and its number."""
    path, accept = f"/api/instance/{id}/qr", {"Accept": "text/plain"}
    with client.exchange("GET", path, None, accept, 90.0) as response:
        drawing = response.read().decode("utf-8", "replace")
        number = response.headers.get("X-Qr-Number", "")
    if sys.stdout.isatty():  # white on black in every terminal: a scanner needs the contrast
        drawing = "".join(f"\x1b[97;40m{line}\x1b[0m\n" for line in drawing.splitlines())
    return drawing, number


def _watch(client: Client, id: str, deadline: float) -> int:
    drawn = ("", "")
    while time.monotonic() < deadline:
        if client.get(f"/api/instance/{id}")["connection_status"] == "CONNECTED":
            print(f"{id} is connected")
            return 0
        try:
            drawing = draw_code(client, id)
        except AgentSaidNo as error:
            # Between two codes, and in the moment of the scan, there is none: ask again.
            if error.code not in ("no_qr", "connected", "link", "try_later"):
                raise
        else:
            if drawing != drawn:
                clear = "\x1b[2J\x1b[H" if sys.stdout.isatty() and drawn[0] else ""
                print(f"{clear}{drawing[0]}scan with WhatsApp: {id}, code {drawing[1]}")
                sys.stdout.flush()
                drawn = drawing
        time.sleep(0.5)
    raise TryLater(f"cannot watch longer: no phone scanned the code of {id}")


def send(options: argparse.Namespace) -> int:
    """Send a text or a file."""
    path = f"/api/instance/{options.id}/messages?wait={options.wait}"
    text = sys.stdin.read() if options.text == "-" else options.text
    content: dict[str, Any] = {"text": text}
    if options.file is not None:
        content = {"type": "media", "caption": text, **file_fields(options.file)}
    body = given({"to": options.to, "quote": options.quote, **content})
    key = options.idempotency_key
    # As the header that has its bytes. An empty one is the agent's to refuse.
    headers = {} if key is None else {"Idempotency-Key": key.encode().decode("latin-1")}
    seconds = 90.0 + max(options.wait, 0)  # more than the wait: what one takes that is not kept
    client = client_of(options)
    message = client.request("POST", path, body, headers, seconds)
    if message.get("state") in ("accepted", "sending"):
        kept = f"kept as {message['id']}: it is sent when the session can"
        return print_answer(options, message, kept, clean(message.get("sentence", "")))
    return print_answer(options, message, f"sent message_id={message['message_id']}")


def file_fields(path: Path) -> dict[str, Any]:
    import mimetypes  # only where there is a file

    with open_source(path, "file") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        words = f"cannot send {path}: it has more than {_LARGEST >> 20} MiB"
        raise InvalidRequest(words, field="file")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"content": b64encode(content).decode(), "mimetype": kind, "filename": path.name}


# Copies: snapshots, the trash, and what repairs removed from a session on a backend


def snapshot(options: argparse.Namespace) -> int:
    """Copy a session now."""
    made = _post(options, f"copying {options.id}", "snapshots")
    done = f"snapshot {made['name']} of {options.id}: {_contents(made)}"
    return print_answer(options, made, done)


def list_snapshots(options: argparse.Namespace) -> int:
    """List a session's copies."""
    path, nothing = f"/api/instance/{options.id}/snapshots", f"no snapshots of {options.id}"
    columns: Columns = {"NAME": "name", "TAKEN": "taken", "CONTENTS": _contents, "WHY": "why"}
    return list_of(options, path, columns, nothing)


def restore(options: argparse.Namespace) -> int:
    """Replace a session by a snapshot; the trash keeps the replaced session."""
    path = f"snapshots/{options.name}/restore"
    answer = _post(options, f"restoring {options.id}", path, {"force": options.force})
    taken, trash = moment(answer["snapshot"]["taken"]), answer["trash"]
    return print_answer(
        options,
        answer,
        f"{options.id} is as it was at {taken}",
        f"the trash has the old session as {trash}" if trash else "",
    )


def _post(options: argparse.Namespace, words: str, path: str, body: Any = None) -> dict[str, Any]:
    """A request that may take minutes."""
    path = f"/api/instance/{options.id}/{path}"
    with progress(options, words):
        return client_of(options).post(path, body, LONGEST)


def _contents(copy: dict[str, Any]) -> str:
    if copy["problem"]:
        return str(copy["problem"])
    kind = "backup, " if copy["backup"] else ""
    return f"{kind}{copy['state']}, {copy['files']} files, {copy['bytes']} bytes"


def list_trash(options: argparse.Namespace) -> int:
    """List retired sessions."""
    columns = {"NAME": "name", "ID": "id", "RETIRED": "retired"}
    return list_of(options, "/api/trash", columns, "the trash is empty")


def untrash(options: argparse.Namespace) -> int:
    """Bring a retired session back."""
    path = f"/api/trash/{options.name}/restore"
    instance = client_of(options).post(path)
    state = "enabled" if instance["enabled"] else "disabled"
    return print_answer(options, instance, f"{instance['id']} is back, {state}")


def list_removed(options: argparse.Namespace) -> int:
    """List what repairs removed."""
    path = f"/api/instance/{options.id}/removed{TO_THE_END}"
    columns: Columns = {"NAME": "name", "REMOVED": "removed", "CONTENTS": _removed}
    columns = {**columns, "STATE": "state", "WHY": "why"}
    return list_of(
        options, path, columns, f"no repair removed files or keys of {options.id}", LONGEST
    )


def put_back(options: argparse.Namespace) -> int:
    """Put removed files and keys back; the session is down meanwhile."""
    path = f"removed/{options.name}/restore{TO_THE_END}"
    answer = _post(options, f"putting {options.name} of {options.id} back", path)
    return print_answer(
        options,
        answer,
        f"{_removed(answer['removed'])} of {options.id} put back",
        f"{options.id} is {answer['instance']['connection_status']}",
    )


def _removed(row: dict[str, Any]) -> str:
    folder = "the whole folder, " if row["whole"] else ""
    return f"{folder}{row['files']} files, {row['keys']} keys in Redis"
