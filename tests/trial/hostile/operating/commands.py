"""What an operator can type and request, read from the program itself: the commands of the CLI, the
routes of the API. Each has a row here that says whether it may end a
pairing or why it is left out."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from agent.api.http.call import Route, plain_path
from agent.api.routes import ROUTES
from agent.cli.command import build_parser

Step = dict[str, Any]
BOTS, BACKENDS = ("k", "k2"), {"evo": ("eu", "shop"), "desk": ("srv", "7")}


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


LINKED = ("wa", *BOTS)
IDS = ("a", "b", "c", "wa", *BOTS, *BACKENDS)
"""Sandboxes (`c` is not there at first), a Baileys session, two instances over the copies of two
devices of one account, a session of an Evolution server, one of a whaticket-like server."""
PEERS = ["551199999901", "551199999902"]
"""Contacts of the session `desk`."""
DEAF = "ws://127.0.0.1:9/ws/chat"
"""What those of `BOTS` take for WhatsApp: nothing of theirs ever leaves the machine."""

ENDS = {
    "logout": "--yes", "cleanup": "--yes", "ensure-healthy": "--yes",
    "delete": "", "restore": "", "import": "--replace",
}  # fmt: skip
"""A command that may end a pairing, or put other files in its place; with this flag, if one."""
KEEPS = words_of(
    "version, create, list, show, settings, enable, disable, start, stop, restart, passkey, "
    "send, backends show, backends add, "
    "backends sessions, backends adopt, "
    "backends check, backends reset, qr, top, health, why, recover, "
    "incidents release, reasons, events, logs, "
    "programs drop-in, webhooks test, "
    "webhooks retry, snapshot, snapshots, export, "
    "removed list, removed restore, trash list, trash restore, key add, key "
    "list, key revoke, repair, sandbox fault, sandbox scan, sandbox clear, sandbox say, "
    "sandbox heard, pairing-code, screenshot, messages, outbox, doctor, "
    "config check, config show, config init, run"
)
LEFT = {
    "demo": "an agent of its own",
    "pair": "opens a browser on a desktop",
    "install-units": "changes the machine",
}
LEFT_OPTIONS = ("follow", "watch", "help", "listen")
"""They run until they are interrupted, or change the machine."""

ROUTES_END = {
    "POST {I}/logout": "confirm", "POST {I}/cleanup": "confirm",
    "POST {I}/ensure-healthy": "confirm", "POST /api/v1/whatsapp/setup": "confirm",
    "DELETE {I}": "", "POST {I}/snapshots/{snapshot}/restore": "", "POST /api/import": "replace",
    "POST {I}/sandbox/fault": "",
}  # fmt: skip
"""As `ENDS`; {I} is the path of an instance."""
ROUTES_KEEP = words_of(
    "POST /api/instance, GET /api/instances, GET {I}, GET {I}/details, PATCH {I}, POST "
    "{I}/enable, POST {I}/disable, POST {I}/start, POST {I}/stop, POST {I}/restart, PUT "
    "{I}/passkey, POST {I}/health, POST {I}/recover, GET {I}/qr, POST {I}/pairing-code, GET "
    "{I}/screenshot, GET {I}/worker-lines, GET {I}/failed-starts, GET "
    "{I}/failed-starts/{failed}/picture, GET {I}/events, POST {I}/messages, "
    "POST {I}/read, POST {I}/presence, GET "
    "{I}/outbox, GET {I}/outbox/{message}, DELETE {I}/outbox/{message}, POST "
    "{I}/sandbox/scan, POST {I}/sandbox/say, GET {I}/sandbox/heard, GET "
    "/api/troubles, GET /api/engines, GET /api/backends, POST /api/reload, GET "
    "/api/backends/{name}, GET "
    "/api/backends/{name}/sessions, POST /api/backends/{name}/adopt, POST "
    "/api/backends/{name}/check, POST /api/backends/{name}/reset, "
    "GET {I}/messages, GET {I}/messages/live, GET {I}/messages/{message}/media, GET /api/messages, "
    "GET /api/webhooks, POST /api/webhooks/{name}/test, POST "
    "/api/webhooks/{name}/retry, GET /api/health, POST /api/health/check, POST "
    "/api/database/check, PUT /whatsapp/{id}/disconnect, PUT /whatsapp/{id}/start-session, POST "
    "/force-reconnection/{id}, POST /reset-circuit-breaker/{id}, GET /reconnection-status, GET "
    "/performance-metrics, GET /api/memory/report, GET /api/incidents, POST "
    "/api/incidents/{group}/release, GET /api/repairs/statistics, GET {I}/snapshots, POST "
    "{I}/snapshots, GET {I}/removed, POST {I}/removed/{removed}/restore, POST {I}/export, "
    "GET /api/trash, POST /api/trash/{name}/restore, GET "
    "/api/caller, GET /api/keys, POST /api/keys, DELETE /api/keys/{key}, GET /api/events, GET "
    "/metrics, GET /healthz, GET /readyz, GET /openapi.json, GET /docs, GET /"
)

PASSED_BY = {
    **dict.fromkeys(("after_tmp_write", "after_rename"), ("PATCH {I}", "POST {I}/snapshots")),
    **dict.fromkeys(("before_commit", "after_commit"), ("POST {I}/stop", "POST /api/instance")),
    **dict.fromkeys(("retire_manifest", "retire_moved"), ("DELETE {I}", "POST {I}/cleanup")),
    **dict.fromkeys(("deletion_begun", "deletion_retired"), ("DELETE {I}",)),
    **dict.fromkeys(
        ("snapshot_begun", "snapshot_copied", "snapshot_manifest", "snapshot_verified"),
        ("POST {I}/snapshots", "POST {I}/export"),
    ),
    **dict.fromkeys(("snapshot_visible", "mid_prune"), ("POST {I}/snapshots",)),
    "restore_copied": ("POST {I}/snapshots/{snapshot}/restore",),
    "import_unpacked": ("POST /api/import",),
    **dict.fromkeys(
        ("staging_made", "staging_ready", "staging_way_free", "staging_in_place"),
        ("POST /api/import", "POST {I}/snapshots/{snapshot}/restore"),
    ),
    **dict.fromkeys(
        ("repair_begun", "repair_done", "repair_stopped", "repair_disconnected"),
        ("POST {I}/cleanup", "POST {I}/ensure-healthy", "POST {I}/recover"),
    ),
    **dict.fromkeys(("cleanup_reset", "set_aside"), ("POST {I}/cleanup", "POST {I}/logout")),
    "action_begun": ("POST {I}/restart", "POST {I}/stop"),
    "renew_done": ("POST {I}/logout",),
    **dict.fromkeys(
        ("outbox_file", "outbox_accepted", "outbox_begun", "outbox_sent", "outbox_noted"),
        ("POST {I}/messages",),
    ),
}
"""A fail point → requests on whose way it lies."""


@dataclass(frozen=True, slots=True)
class Command:
    words: str
    actions: tuple[argparse.Action, ...]


@cache
def commands() -> Mapping[str, Command]:
    return {each.words: each for each in _leaves(build_parser(), "")}


def _leaves(parser: argparse.ArgumentParser, words: str) -> Iterator[Command]:
    groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not groups:
        common = ("help", "json", "socket", "url", "key")
        yield Command(words, tuple(a for a in parser._actions if a.dest not in common))
    for group in groups:
        for name, inner in group.choices.items():
            yield from _leaves(inner, f"{words} {name}".strip())


@cache
def routes() -> Mapping[str, Route]:
    return {
        f"{route.method} {plain_path(route.path)}".replace("/api/instance/{id}", "{I}"): route
        for route in ROUTES
        if not route.path.startswith("/page/")
    }


def lacking() -> list[str]:
    """Commands and routes without a row here."""
    found = [words for words in commands() if words not in KEEPS | ENDS.keys() | LEFT.keys()]
    found += [name for name in routes() if name not in ROUTES_KEEP | ROUTES_END.keys()]
    known = ROUTES_KEEP | ROUTES_END.keys()
    found += [f"no longer there: {each}" for each in known - routes().keys()]
    played = (KEEPS | ENDS.keys() | LEFT.keys()) - commands().keys()
    return found + [f"no longer there: {each}" for each in played]
