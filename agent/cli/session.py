"""A session: its life (`create` to `delete`), the code that links it and its page, its copies;
`send`, where the API also sends other kinds than text and files; what `import` sends of
it. `--wait` follows it until it is connected, or until only a person can help."""

import json
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from agent.cli.client import AgentSaidNo, Client, check_target, open_source, whole_file
from agent.cli.command import Commands, Options, Words, clean, moment, say
from agent.core.reasons import reason_of
from agent.core.words import counted, parse_instance_id
from agent.errors import AgentUnreachable, InvalidRequest, Refused, TryLater, WaError

SETTLED = 5.0
"""Seconds: right after a start an instance may still show the reason of its last run, and the
sandbox a code that its own phone scans."""
_LATE = "exit status 75 when late, or when a person must scan"
WAIT: Words = {"--wait SECONDS": f"wait until it is connected; {_LATE}"}
SET: Words = {"--set NAME=VALUE…": "an engine's setting; the value is JSON or plain text"}
CONFIRM: Words = {"--confirm-passkey ID": "the id once more, where the account needs a passkey"}
_YES: Words = {"--yes=confirm": "confirm that the pairing ends"}
_LOGOUT = "end an instance's pairing; a person must scan again"
_INTENTS: tuple[tuple[str, str, str, Words], ...] = (
    ("enable", "run an instance, now and after every boot", "enabled", WAIT),
    ("disable", "stop an instance, now and after every boot", "disabled", {}),
    ("start", "run an instance until the next boot", "will be started", WAIT),
    ("stop", "stop an instance until the next start or boot", "will be stopped", {}),
    ("restart", "restart an instance; one that is down is started", "will be restarted", WAIT),
    ("logout", _LOGOUT, "is being logged out", {**_YES, **CONFIRM}),
)
_LARGEST = 64 << 20
"""More bytes no api.media_limit lets through."""


def add(commands: Commands) -> None:
    commands.one("create", create, "--engine sandbox", words={**SET, **WAIT})
    commands.one("settings", settings, "--set scan=manual", words=SET)
    for name, summary, done, words in _INTENTS:
        commands.one(name, intend, summary=summary, words=words, verb=name, done=done)
    commands.one("delete", delete, words=CONFIRM)
    commands.one("passkey", mark, "needed")
    commands.one("qr", show_qr, "--watch", **{"for": 300.0})
    commands.one("pairing-code", pairing_code, "+4915112345678")
    commands.one("screenshot", screenshot, "sales.png")
    commands.one("send", send, "4915112345678 hello", wait=30)

    commands.one("snapshot", snapshot)
    commands.one("snapshots", list_snapshots)
    commands.one("restore", restore, "20260115T103045Z-12")
    among = Commands(commands.add("trash", list_trash))
    among.add("list", list_trash)
    among.add("restore", untrash, "sales.20260115T103045Z-4")
    among = commands.group("removed", "what repairs took from a session on a backend", "list sales")
    among.one("list", list_removed)
    among.one("restore", put_back, "20260115T103045Z")


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name:
            raise InvalidRequest(f"cannot use {pair!r}: it must be NAME=VALUE", field="set")
        settings[name] = value
        with suppress(ValueError):  # NaN and Infinity are no JSON, although Python reads them
            settings[name] = json.loads(json.dumps(json.loads(value), allow_nan=False))
    return settings


def create(options: Options) -> int:
    """Create an instance.

    --engine ENGINE!: engine that connects it to WhatsApp
    --backend NAME: the backend that runs its session
    --remote NAME: its name on the backend; default: the id
    --disabled: create it without running it
    --program NAME: the [[program]] of agent.toml that runs as it
    """
    program = [] if options.program is None else [f"program={options.program}"]
    body = options.given("id", "engine", "backend", "remote")
    body |= {"enabled": not options.disabled, "settings": parse_settings([*options.set, *program])}
    made = options.ask("POST /api/instance", body)
    done = "created, disabled" if options.disabled else "created"
    return wait_and_print(options, made, done + but_it_lacks(options, made))


def but_it_lacks(options: Options, made: dict[str, Any]) -> str:
    """Parts that this machine lacks to run a session that was just made, also put into the answer.
    Such a session is not refused: a person may install the parts later."""
    if options.client.url or made["engine"] not in ("web", "baileys", "program"):
        return ""
    from agent.cli import doctor  # with the checks of every room

    made["lacks"] = [*doctor.lacking(options.client, made["id"], made["engine"])]
    return "".join(f"\nbut it cannot run here yet: {it}" for it in made["lacks"])


def settings(options: Options) -> int:
    """Change an instance's settings."""
    present, note = options.ask("GET details")["settings"], ""
    if changes := parse_settings(options.set):
        # null removes a setting, so that the engine's default is used again.
        merged = {k: v for k, v in {**present, **changes}.items() if v is not None}
        answer = options.ask(f"PATCH /api/instance/{options.id}", {"settings": merged})
        present = answer["settings"]
        if answer["worker"] in ("active", "activating"):
            note = f"{options.id} has its former settings until: wa-agent restart {options.id}"
    told = {name: json.dumps(it) for name, it in present.items()} or "nothing is set: defaults hold"
    return options.print(present, told, note)


def intend(options: Options) -> int:
    asked = f"POST {options.verb}{'?wait=300' if options.verb == 'logout' else ''}"
    waits = options.verb == "restart" and options.wait is not None
    details = options.ask("GET details") if waits else None
    instance = options.ask(asked, options.given("confirm", "confirm_passkey"))
    # A backend's session has no run that ends: it is proved again.
    old = details and (details["proved"] if details["backend"] else details["unit"]["run"])
    return wait_and_print(options, instance, options.done, old)


def shows_code(options: Options) -> bool:
    """False also where the agent does not answer now: what was done before is done."""
    with suppress(WaError):
        return bool(options.ask("GET details")["connection_status"] == "QR_REQUIRED")
    return False


def mark(options: Options) -> int:
    """Note whether an instance's account needs a passkey to link.

    word=needed|not-needed: needed: no automatic step ends its pairing, and its end needs
        --confirm-passkey
    """
    needed = options.word == "needed"
    done = f"{{id}}: its account needs {'a' if needed else 'no'} passkey to link"
    return options.do("PUT passkey", done, {"needed": needed})


def delete(options: Options) -> int:
    """Retire an instance's session and remove the instance; a backend keeps its session.

    --remote: also delete its session on the backend, for good
    --confirm WORDS: for --remote: the words 'delete REMOTE'
    """
    query = {"wait": 300, **({"remote": "true"} if options.remote else {})}
    asked, body = f"DELETE /api/instance/{options.id}", options.given("confirm", "confirm_passkey")
    answer = options.ask(asked, body, f"deleting {options.id}", **query)
    lines = [f"{options.id} deleted"]
    if "remote" in answer:
        state = "being made again" if answer["remote_renewing"] else "untouched"
        state = "deleted too" if answer["remote_deleted"] else state
        lines.append(f"{clean(answer['remote'])} on {answer['backend']} is {state}")
    lines += ["agent.toml declares it, and the next start makes it again"] * answer["declared"]
    if answer["keys_ended"]:
        lines.append(f"keys that open it no more: {', '.join(map(clean, answer['keys_ended']))}")
    if dropped := answer.get("messages_dropped"):
        lines.append(f"{counted(dropped, 'message')} not sent yet went with it, for good")
    if trash := answer["trash"]:
        lines.append(f"its session can come back{_on(answer)}: wa-agent trash restore {trash}")
    return options.print(answer, *lines)


def _on(answer: dict[str, Any]) -> str:
    """In a fleet, whose trash it is: `wa-agent trash` is of the machine that is asked."""
    return f" on machine {clean(answer['machine'])}" if answer.get("machine") else ""


def wait_and_print(options: Options, instance: dict[str, Any], done: str, old: Any = "") -> int:
    with already(f"{options.id} {done}"):
        if getattr(options, "wait", None) is not None:
            instance = wait_until_connected(options.client, options.id, options.wait, old)
            done = "is connected"
        on = "it stays disabled: it runs until the next boot" * (instance["override"] == "started")
        why = f"it waits: {clean(instance['wait_sentence'])} (wa-agent why {options.id})"
        return options.print(instance, f"{options.id} {done}", on, instance["wait_reason"] and why)


@contextmanager
def already(done: str) -> Iterator[None]:
    """An end of the rest says that this much is done: an error, a full output, Ctrl+C."""
    done = done.replace("\n", "; ")
    try:
        yield
    except WaError as error:
        error.args = (f"{done}; {error}",)
        raise
    except (OSError, KeyboardInterrupt):
        say(f"wa-agent: {done}")
        raise


def wait_until_connected(client: Client, id: str, seconds: float, old: str = "") -> dict[str, Any]:
    """`old`: the run, or the proof, that another one follows first."""
    deadline, in_vain_at = time.monotonic() + seconds, time.monotonic() + SETTLED
    while True:
        instance = client.get(f"/api/instance/{id}")
        now, status = time.monotonic(), instance["connection_status"]
        shown = client.get(f"/api/instance/{id}/details") if old else {}
        seen = {shown["unit"]["run"], shown["proved"]} if old else set()
        if status == "CONNECTED" and seen.isdisjoint({old, None}):
            return instance
        if not (status == "QR_REQUIRED" or needs_person(instance)):
            in_vain_at = now + SETTLED
        if now >= in_vain_at:
            if status == "QR_REQUIRED":
                raise TryLater(f"a person must scan the code of {id}: wa-agent qr {id} --watch")
            raise in_vain(id, instance)
        if now >= deadline:
            raise TryLater(f"cannot wait longer for {id}: it is {status}, {instance['sentence']}")
        time.sleep(0.2)


def needs_person(instance: dict[str, Any]) -> bool:
    """True where it is disabled or stopped, or down for a reason that only a person ends."""
    down = instance["connection_status"] in ("DISCONNECTED", "AUTH_FAILURE")
    return not instance["should_run"] or (down and reason_of(instance["reason"]).hopeless)


def in_vain(id: str, instance: dict[str, Any]) -> Refused:
    verb = "start" if instance["reason"] == "stopped" else "enable"
    cure = "" if instance["should_run"] else f": wa-agent {verb} {id}"
    return Refused(f"cannot wait for {id}: a person must help, {instance['sentence']}{cure}")


def pairing_code(options: Options) -> int:
    """Get a code to type on the phone instead of a scan.

    PHONE: the account's number, with country code
    """
    code = options.ask("POST pairing-code", options.given("phone"), wait=300)
    how = "on the phone: linked devices, link with phone number"
    if code["expires_in"] is not None:  # not every engine knows
        how += f"; valid for {code['expires_in'] / 60:.0f} min"
    return options.print(code, code["code"], how)


def screenshot(options: Options) -> int:
    """Take a picture of an instance's page, with its codes hidden.

    FILE: the picture to write: PNG, or JPEG if a PNG is too large
    --force: replace the file
    """
    check_target(options.file, force=options.force)
    path = f"/api/instance/{options.id}/screenshot?wait=300"
    with options.client.exchange("GET", path, Accept="image/*") as response:
        picture = response.read()  # an error of this one is none of the file's
    with whole_file(options.file) as file:
        written = {"file": str(options.file), "bytes": file.write(picture)}
    return options.print(written, f"{options.file} written; it may show messages")


def show_qr(options: Options) -> int:
    """Show the code to scan.

    --watch: follow the code until connected
    --for SECONDS: seconds to watch, default 300
    """
    client, id = options.client, options.id
    if not options.watch:
        code = "" if options.json else draw_code(client, id)[0].removesuffix("\n")
        return options.print(options.json and options.ask("GET qr"), code)
    deadline, drawn = time.monotonic() + vars(options)["for"], ("", "")
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
                print(f"{clear}{drawing[0]}scan with WhatsApp: {id}, code {drawing[1]}", flush=True)
                drawn = drawing
        time.sleep(0.5)
    raise TryLater(f"cannot watch longer: no phone scanned the code of {id}")


def draw_code(client: Client, id: str) -> tuple[str, str]:
    """The code in this terminal's colours, and its number."""
    with client.exchange("GET", f"/api/instance/{id}/qr", Accept="text/plain") as response:
        drawing = response.read().decode("utf-8", "replace")
    if sys.stdout.isatty():  # white on black in every terminal: a scanner needs the contrast
        drawing = "".join(f"\x1b[97;40m{line}\x1b[0m\n" for line in drawing.splitlines())
    return drawing, response.headers.get("X-Qr-Number", "")


def send(options: Options) -> int:
    """Send a text or a file.

    TO: a number or a chat's id
    [TEXT]: the message, or the caption of the file; - reads stdin
    --file PATH: send a picture, a sound or a document
    --quote ID: reply to that message
    --idempotency-key KEY: send a message with this key only once
    --wait SECONDS: wait until WhatsApp has it, default %(default)s; 0 = until it is kept
    """
    text = sys.stdin.read() if options.text == "-" else options.text
    body = options.given("to", "quote")
    if options.file is not None:
        body |= {"type": "media", **file_fields(Path(options.file))}
    if text is not None:
        body["text" if options.file is None else "caption"] = text
    key = options.idempotency_key
    # As the header that has its bytes. An empty one is the agent's to refuse.
    headers = {} if key is None else {"Idempotency-Key": key.encode().decode("latin-1")}
    deadline = time.monotonic() + options.wait
    while True:
        left = max(round(deadline - time.monotonic()), 0)
        path = f"/api/instance/{options.id}/messages?wait={left}"
        try:
            message = options.client.request("POST", path, body, **headers)
            break
        except AgentSaidNo as error:
            if error.code not in ("not_connected", "not_running"):
                raise
        except AgentUnreachable as error:
            if error.__cause__:  # the connection was there
                kept = f"the message may be kept, as `wa-agent outbox {options.id}` shows"
                error.args = (f"{error}; {kept}; without --idempotency-key a repeat may double it",)
            raise
        # None of it went out, and its outbox has it as failed: it is sent again.
        with already("the message is not sent, and not kept for later"):
            if needs_person(it := options.client.get(f"/api/instance/{options.id}")):
                raise in_vain(options.id, it)
            wait_until_connected(options.client, options.id, left)
            time.sleep(0.2)
    if message.get("state") in ("accepted", "sending"):
        kept = f"kept as {message['id']}: it is sent when the session can"
        return options.print(message, kept, clean(message.get("sentence", "")))
    return options.print(message, f"sent message_id={message['message_id']}")


def file_fields(path: Path) -> dict[str, Any]:
    import mimetypes  # only where there is a file

    with open_source(path, "file") as file:
        content = file.read(_LARGEST + 1)
    if not 0 < len(content) <= _LARGEST:
        why = f"it has over {_LARGEST >> 20} MiB" if content else "it is empty"
        raise InvalidRequest(f"cannot send {path}: {why}", field="file")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"content": b64encode(content).decode(), "mimetype": kind, "filename": path.name}


# Copies: snapshots, the trash, and what repairs removed from a session on a backend


def snapshot(options: Options) -> int:
    """Copy a session now."""
    made = options.ask("POST snapshots", doing=f"copying {options.id}")
    return options.print(made, f"snapshot {made['name']} of {options.id}: {_contents(made)}")


def list_snapshots(options: Options) -> int:
    """List a session's copies."""
    columns = {"NAME": "name", "TAKEN": "taken", "CONTENTS": _contents, "WHY": "why"}
    return options.print_list("snapshots", columns, f"no snapshots of {options.id}")


def restore(options: Options) -> int:
    """Replace a session by a snapshot; the trash keeps the replaced session.

    NAME: as `snapshots` shows it
    --force: also replace a newer session or use a damaged snapshot
    """
    path, doing = f"snapshots/{options.name}/restore", f"restoring {options.id}"
    answer = options.ask(f"POST {path}", options.given("force"), doing)
    taken, trash = moment(answer["snapshot"]["taken"]), answer["trash"]
    old = f"the trash{_on(answer)} has the old session as {trash}" if trash else ""
    return options.print(answer, f"{options.id} is as it was at {taken}", old)


def _contents(copy: dict[str, Any]) -> str:
    if copy["problem"]:
        return str(copy["problem"])
    size = f"{counted(copy['files'], 'file')}, {counted(copy['bytes'], 'byte')}"
    return f"{'backup, ' if copy['backup'] else ''}{copy['state']}, {size}"


def list_trash(options: Options) -> int:
    """List retired sessions."""
    columns = {"NAME": "name", "ID": "id", "RETIRED": "retired"}
    return options.print_list("/api/trash", columns, "the trash is empty")


def untrash(options: Options) -> int:
    """Bring a retired session back.

    NAME: as `trash list` shows it
    """
    instance = options.ask(f"POST /api/trash/{options.name}/restore")
    state = "enabled" if instance["enabled"] else "disabled"
    return options.print(instance, f"{instance['id']} is back, {state}")


def list_removed(options: Options) -> int:
    """List what repairs removed."""
    columns = {"NAME": "name", "REMOVED": "removed", "CONTENTS": _removed, "STATE": "state"}
    nothing = f"no repair removed files or keys of {options.id}"
    return options.print_list("removed?wait=300", {**columns, "WHY": "why"}, nothing)


def put_back(options: Options) -> int:
    """Put removed files and keys back; the session is down meanwhile.

    NAME: as `removed list` shows it
    """
    doing = f"putting {options.name} of {options.id} back"
    answer = options.ask(f"POST removed/{options.name}/restore", doing=doing, wait=300)
    back, status = _removed(answer["removed"]), answer["instance"]["connection_status"]
    return options.print(answer, f"{back} of {options.id} put back", f"{options.id} is {status}")


def _removed(row: dict[str, Any]) -> str:
    whole = "the whole folder, " if row["whole"] else ""
    return f"{whole}{counted(row['files'], 'file')}, {counted(row['keys'], 'key')} in Redis"


# Importing: an archive sent to the agent


def upload(options: Options, archive: IO[bytes], id: str | None, name: str) -> dict[str, Any]:
    """Gives an archive to the agent; the new instance."""
    wanted = {"replace": options.replace, "enable": options.enable, "id": id}
    query = {key: "true" if value is True else value for key, value in wanted.items() if value}
    return options.ask("POST /api/import", archive, f"importing {name}", **query)


def id_for(source: str) -> str:
    """A source's name in the letters of an id; "" where none of them can be one."""
    name = "".join(letter if letter.isalnum() else "-" for letter in source.lower())
    with suppress(InvalidRequest):
        return parse_instance_id(name.encode("ascii", "ignore").decode().strip("-"))
    return ""


def finish(options: Options, instance: dict[str, Any]) -> int:
    """Reports one session, with --wait once it is connected."""
    id, enabled, trash = instance["id"], instance["enabled"], instance["trash"]
    if options.wait is not None:
        with options.progress(f"waiting for {id}"), already(f"{id} imported"):
            wait_until_connected(options.client, id, options.wait)
    return options.print(
        instance,
        f"{id} imported, {'enabled' if enabled else 'disabled'}{but_it_lacks(options, instance)}",
        f"engine {instance['engine']}, account {instance['account'] or 'not known yet'}",
        f"SHA-256 of the archive: {instance['sha256']}",
        instance.get("left_out", ""),
        f"the trash has the old session as {trash}" if trash else "",
        "" if enabled else f"run it once no other copy runs: wa-agent enable {id}",
    )
