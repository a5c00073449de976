"""All commands, and under which title the help shows each. A module is imported when one of its
words is typed."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from agent.cli.command import Group

WORDS: Mapping[str, str] = {
    "agent": "run worker version",
    "sessions.create": "create",
    "sessions.views": "list show",
    "sessions.settings": "settings",
    "sessions.intents": "enable disable start stop restart logout",
    "sessions.delete": "delete",
    "sessions.passkey": "passkey",
    "backends.command": "backends",
    "sessions.send": "send",
    "sessions.moments": "read presence",
    "sessions.qr": "qr",
    "watch.top": "top",
    "watch.health": "health",
    "watch.why": "why",
    "sessions.repairs": "recover ensure-healthy cleanup repair setup incidents",
    "watch.reasons": "reasons",
    "watch.events": "events",
    "watch.logs": "logs",
    "copies.snapshots": "snapshot snapshots restore",
    "sessions.remote_session": "removed remote-settings",
    "copies.trash": "trash",
    "keys": "key",
    "sessions.sandbox": "sandbox",
    "sessions.web": "pairing-code screenshot",
    "agent.moving.commands": "export import",
    "agent.moving.program_commands": "programs",
    "copies.pair": "pair",
    "agent.messages.commands": "messages outbox",
    "agent.webhooks.commands": "webhooks",
    "doctor.command": "doctor",
    "config": "config",
    "install_units": "install-units",
    "demo": "demo",
}
"""The modules of commands, below agent/cli or of another room, each with its words."""

SECTIONS: Mapping[str, str] = {
    "every day": "create qr list show why events send restart top doctor",
    "a session": "settings enable disable start stop logout delete passkey pairing-code screenshot"
    " read presence",
    "what happens": "health reasons incidents logs",
    "repairs": "repair recover ensure-healthy cleanup setup",
    "copies, and moving in": "snapshot snapshots restore trash export import pair",
    "your own bots": "programs",
    "sessions on Evolution and whaticket servers": "backends remote-settings removed",
    "this installation": "run config key version worker install-units",
    "trying it out": "sandbox demo",
    "messages": "messages outbox",
    "events to other programs": "webhooks",
}
"""The titles of the help, each with its commands."""


def group_of(word: str) -> Group | None:
    """The module of that command alone; None: it takes all of them to answer."""
    return next((take() for words, take in modules() if word in words.split()), None)


def all_groups() -> Iterator[Group]:
    return (take() for _, take in modules())


def modules() -> Iterator[tuple[str, Callable[[], Any]]]:
    """The words of each module of commands, and how it is imported."""
    for name, words in WORDS.items():
        whole = name if name.startswith("agent.") else f"agent.cli.{name}"
        yield words, partial(import_module, whole)
