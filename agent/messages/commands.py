"""`wa-agent messages`: what arrived in a session, the one command that shows texts; `wa-agent
outbox`: what waits to be sent of it."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from agent.cli.client import AgentSaidNo, check_target, write_checked
from agent.cli.command import Commands, Options, Words, clean, shown
from agent.cli.views import follow
from agent.errors import InvalidRequest
from agent.messages.outcomes import State


def add(commands: Commands) -> None:
    words: Words = {"--after CURSOR": ("begin behind this cursor, or: newest", {"type": str})}
    commands.one("messages", messages, "-f", words=words, after="0")
    of_states = {"metavar": None, "choices": tuple(State)}
    words = {"--state STATE": ("only messages in this state", of_states)}
    commands.one("outbox", outbox, words=words, limit=50)


def messages(options: Options) -> int:
    """Print what arrived in a session, from the oldest record that is kept.

    -f/--follow: keep printing what arrives
    --media ID: fetch the file of a record (its id: --json)
    --chat JID: then ID is WhatsApp's id of a message of this chat
    --out FILE: where the file goes
    --force: replace a FILE that is there
    """
    if options.media is not None:
        return _fetch(options)
    query: dict[str, Any] = {"after": options.after, "limit": 200}
    for page in follow(options, "messages", query):
        for record in page["records"]:
            _print(record, options)
        query |= {"after": page["next"], **({} if page["more"] else {"wait": 30})}
    return 0


def _print(record: dict[str, Any], options: Options) -> None:
    when = str(shown("_wall", (at := record.get("at") or record.get("kept")) and float(at)))
    chat, sender = record.get("chat", ""), str(record.get("sender", ""))
    if record.get("from_me"):
        sender = "me"
    elif name := record.get("name", ""):
        sender = f"{name} <{sender}>"
    where = f"{sender} in {chat}" if sender and sender != chat else chat or "-"
    head = f"{when} {record.get('cursor', '-')} [{clean(where)}]"
    options.print_line(record, f"{clean(record['kind'])}{clean(_what(record))}", head)


def _what(record: dict[str, Any]) -> str:
    """The text and state of a record, in one line."""
    if record["kind"] == "message_gap":
        return f": {record.get('missing', 'an unknown number of')} records at most are gone"
    type_ = record.get("type", "text")
    words = ["" if type_ == "text" else f"({type_})", record.get("state"), record.get("emoji")]
    said = " ".join(filter(None, [*words, record.get("text")])).replace("\n", " / ")
    return f": {said}" if said else ""


def _fetch(options: Options) -> int:
    """Write the file of a message, whole or not at all."""
    if not (options.media and options.out):
        raise InvalidRequest("cannot fetch the file: give --media ID and --out FILE", field="out")
    out = Path(options.out)
    check_target(out, force=options.force)
    query = {"wait": 60, **({"chat": options.chat} if options.chat else {})}
    path = f"/api/instance/{options.id}/messages/{quote(options.media, safe='')}/media"
    client, until = options.client, time.monotonic() + 900.0
    while True:
        try:
            with client.exchange("GET", f"{path}?{urlencode(query)}", Accept="*/*") as response:
                size, digest = write_checked(response, out, "X-Media-SHA256")
                mimetype = response.headers.get("Content-Type", "")
                break
        except AgentSaidNo as error:
            if error.code != "media_loading" or time.monotonic() > until:
                raise
    shown = {"file": str(out), "bytes": size, "sha256": digest, "mimetype": mimetype}
    return options.print(shown, f"{out}: {size} bytes, {mimetype}, sha256 {digest}")


def outbox(options: Options) -> int:
    """List messages that wait to be sent and what became of the others, or cancel one.

    --limit N: messages at most, newest first
    --cancel MESSAGE: cancel the message of this id, if it is not sent
    """
    if options.cancel is not None:
        return _cancel(options)
    page = options.ask("GET outbox", **options.given("limit", "state"))
    if (waits := page["outbox"]) and waits["sentence"] and not options.json:
        print(f"{waits['waiting']} wait: {clean(waits['sentence'])}")
    shown = {"ID": "id", "ACCEPTED": "accepted", "TO": "to", "TYPE": "type", "STATE": "state"}
    shown |= {"TRIES": "tries", "WHATSAPP'S ID": "message_id", "WHY": "sentence"}
    return options.print_rows(page["messages"], shown, f"the outbox of {options.id} is empty")


def _cancel(options: Options) -> int:
    if not options.cancel or (id := quote(options.cancel, safe=":@=")) != options.cancel:
        why = "--cancel names none by its id; without --cancel, this command lists them"
        raise InvalidRequest(f"cannot cancel a message: {why}", field="cancel")
    message = options.ask(f"DELETE outbox/{id}")
    if message["state"] == State.CANCELLED:
        return options.print(message, f"{message['id']} is cancelled")
    why = f"{message['id']}: {clean(message['sentence'])}; look whether it arrived"
    return options.print(message, why, good=False)
