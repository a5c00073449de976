"""`fleet drain | undrain | forget | accept`: what an operator asks of whole machines."""

import argparse
import time
from typing import Any
from urllib.parse import quote

from agent.cli.client import Client
from agent.cli.command import client_of
from agent.cli.fleet.waiting import ask_until
from agent.cli.terminal.answer import asked, print_answer
from agent.cli.terminal.show import clean
from agent.errors import NotFound, Refused

_STANDSTILL = 60.0
"""After so many seconds without a change the remaining sessions stay: one move may take long."""

_RISK = (
    "A machine that is cut off now may own sessions that others get: they would run twice.\n"
    "Every machine must be reachable or switched off."
)
_AWAY = "; {names} did not tell what runs there, and gets only what the older records say: start it"


def drain(options: argparse.Namespace) -> int:
    client, name = client_of(options), options.name
    answer = client.post(_path(name, "drain"))
    done = f"{name} is drained: it gets no new sessions, and its own move to other machines"
    follow = f"look at it: wa-agent fleet status; take it back: wa-agent fleet undrain {name}"
    if options.wait is not None:
        answer, follow = _until_empty(client, name, options.wait), ""
        done = f"{name} is drained and runs no session; you may switch it off"
    return print_answer(options, answer, done, follow)


def _until_empty(client: Client, name: str, seconds: float) -> dict[str, Any]:
    left, since = -1, time.monotonic()

    def is_over(fleet: dict[str, Any]) -> bool:
        nonlocal left, since
        machine = machine_of(fleet, name)
        sessions = machine["sessions"]
        if sessions != left or fleet["moving"]:
            left, since = sessions, time.monotonic()
        if sessions and not machine["alive"]:
            raise Refused(
                f"cannot empty {name}: it is not alive; wa-agent fleet status, and if it is dead"
                f" for good: wa-agent fleet forget {name}",
                code="machine_lost",
            )
        if sessions and time.monotonic() - since >= _STANDSTILL:
            raise Refused(
                f"cannot empty {name}: {sessions} sessions stay there and none moves;"
                f" wa-agent list --machine {name}, then wa-agent fleet why ID",
                code="sessions_stay",
            )
        return not sessions

    what = f"{name} to be empty"
    return machine_of(ask_until(lambda: client.get("/api/fleet"), is_over, seconds, what), name)


def machine_of(fleet: dict[str, Any], name: str) -> dict[str, Any]:
    machine: dict[str, Any] | None = next(
        (it for it in fleet["machines"] if it["name"] == name), None
    )
    if machine is None:
        names = ", ".join(it["name"] for it in fleet["machines"])
        raise NotFound(f"cannot find the machine {name}; the fleet has: {names}", field="name")
    return machine


def _path(name: str, verb: str) -> str:
    return f"/api/fleet/machines/{quote(name, safe='')}/{verb}"


def undrain(options: argparse.Namespace) -> int:
    answer = client_of(options).post(_path(options.name, "undrain"))
    return print_answer(options, answer, f"{options.name} takes sessions again")


def forget(options: argparse.Namespace) -> int:
    client, name = client_of(options), options.name
    machine = machine_of(client.get("/api/fleet"), name)
    if machine["alive"]:
        raise Refused(
            f"cannot forget {name}: it renewed its lease a moment ago, so it lives; drain it"
            f" instead: wa-agent fleet drain {name}",
            code="machine_alive",
        )
    confirmed = options.confirm
    if confirmed is None:
        confirmed = asked(
            f"Other machines will start the {machine['sessions']} sessions of {clean(name)}.\n"
            f"If {clean(name)} still lives, each of them runs twice, and WhatsApp may end its"
            f" pairing. Make sure that it is switched off.\nTo go on, type its name: ",
        )
    if confirmed != name:
        raise Refused(
            f"cannot forget {name}: a living machine would then run its sessions twice; make sure"
            f" that it is switched off, and confirm with: --confirm {name}",
            code="confirm",
        )
    answer = client.post(_path(name, "forget"), {"confirm": name})
    follow = "its sessions come to other machines within seconds: wa-agent fleet status"
    return print_answer(options, answer, f"{name} counts as dead; {follow}")


def accept(options: argparse.Namespace) -> int:
    client = client_of(options)
    fleet = client.get("/api/fleet")
    if not (halted := fleet["halted"]):
        raise Refused(
            "cannot accept a loss: the fleet's database lost no record", code="not_halted"
        )
    away = ", ".join(clean(it["name"]) for it in fleet["machines"] if not it["alive"])
    lost = clean(halted) + (_AWAY.format(names=away) if away else "")
    words = "yes" if options.yes else asked(f"{lost}.\n{_RISK}\nTo go on, type: yes\n> ")
    if words != "yes":
        raise Refused(
            f"cannot accept the loss without a confirmation: {lost}; confirm with: --yes",
            code="confirm",
        )
    answer = client.post("/api/fleet/accept", {"confirm": True})
    return print_answer(options, answer, "the loss is accepted; sessions may change their machine")
