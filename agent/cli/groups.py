"""All commands, and under which title the help shows each. A module is imported when one of its
words is typed."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from agent.cli.command import Group

WORDS: Mapping[str, str] = {
    "agent": "run worker version",
    "config": "config",
    "keys": "key",
    "sessions.settings": "create settings remote-settings",
    "sessions.views": "list show",
    "sessions.switch": "enable disable start stop restart logout delete passkey",
    "sessions.link": "qr pairing-code screenshot",
    "sessions.send": "send read presence",
    "sessions.repairs": "recover ensure-healthy cleanup repair setup incidents health",
    "sessions.sandbox": "sandbox",
    "backends.command": "backends",
    "watch.top": "top",
    "watch.why": "why reasons",
    "watch.events": "events logs",
    "copies.snapshots": "snapshot snapshots restore trash removed",
    "copies.pair": "pair",
    "agent.moving.commands": "export import",
    "agent.moving.program_commands": "programs",
    "agent.messages.commands": "messages outbox",
    "agent.webhooks.commands": "webhooks",
    "doctor.command": "doctor",
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


def groups_of(word: str) -> Iterator[Group]:
    """The module of that command alone; all of them where the word names none."""
    known = {name for name, words in WORDS.items() if word in words.split()}
    for name in known or WORDS:
        group: Group = import_module(name if name.startswith("agent.") else f"agent.cli.{name}")
        yield group
