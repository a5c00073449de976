"""All commands, and under which title the help shows each. A module is imported when one of its
words is typed."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from agent.cli.command import Group
from agent.wing import wings

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
    "copies.snapshots": "snapshot snapshots restore",
    "sessions.remote_session": "removed remote-settings",
    "copies.trash": "trash",
    "keys": "key",
    "sessions.sandbox": "sandbox",
    "sessions.web": "pairing-code screenshot",
    "agent.moving.commands": "export import",
    "agent.moving.program_commands": "programs",
    "doctor.command": "doctor",
    "config": "config",
}
"""The modules below agent/cli, each with its commands."""

SECTIONS: Mapping[str, str] = {
    "every day": "create qr list show why events send restart top doctor",
    "a session": "settings enable disable start stop logout delete passkey pairing-code screenshot"
    " read presence",
    "what happens": "health reasons incidents",
    "repairs": "repair recover ensure-healthy cleanup setup",
    "copies, and moving in": "snapshot snapshots restore trash export import",
    "your own bots": "programs",
    "sessions on Evolution and whaticket servers": "backends remote-settings removed",
    "this installation": "run config key version worker",
    "trying it out": "sandbox",
}
"""The titles of the help, each with its commands."""


def sections() -> Mapping[str, str]:
    """The titles of the help with their commands, those that only a wing has last."""
    titles = dict(SECTIONS)
    for wing in wings():
        if wing.commands:
            words = (titles.get(wing.title, ""), *wing.commands.values())
            titles[wing.title] = " ".join(words).strip()
    return titles


def group_of(word: str) -> Group | None:
    """The module of that command alone; None: it takes all of them to answer."""
    return next((take() for words, take in modules() if word in words.split()), None)


def all_groups() -> Iterator[Group]:
    return (take() for _, take in modules())


def modules() -> Iterator[tuple[str, Callable[[], Any]]]:
    """The words of each module of commands, and how it is imported."""
    for name, words in WORDS.items():
        yield (
            words,
            partial(import_module, name if name.startswith("agent.") else f"agent.cli.{name}"),
        )
    for wing in wings():
        for name, words in wing.commands.items():
            yield words, partial(wing.take, name)
