"""Commands of the CLI and routes of the API, read from the program itself. Rows here say which may
end a pairing, and which are left out and why."""

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
"""Sessions of `BOTS` take this for WhatsApp: nothing of theirs ever leaves the machine."""

ENDS = {
    "logout": "--yes", "cleanup": "--yes", "ensure-healthy": "--yes",
    "delete": "", "restore": "", "import": "--replace",
}  # fmt: skip
"""A command that may end a pairing, or put other files in its place; with this flag, if one."""
LEFT = {
    "demo": "an agent of its own",
    "pair": "opens a browser on a desktop",
    "install-units": "changes the machine",
}
LEFT_OPTIONS = ("follow", "watch", "listen")
"""They run until they are interrupted, or change the machine."""

ROUTES_END = {
    "POST {I}/logout": "confirm", "POST {I}/cleanup": "confirm",
    "POST {I}/ensure-healthy": "confirm", "POST /api/v1/whatsapp/setup": "confirm",
    "DELETE {I}": "", "POST {I}/snapshots/{snapshot}/restore": "", "POST /api/import": "replace",
    "POST {I}/sandbox/fault": "",
}  # fmt: skip
"""As `ENDS`; {I} is the path of an instance."""

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
