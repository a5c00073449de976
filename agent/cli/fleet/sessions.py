"""`fleet move | release | accept-copy | why | command`: one session, and stored commands."""

import argparse
from typing import Any
from urllib.parse import quote

from agent.cli.client import Client
from agent.cli.command import client_of
from agent.cli.fleet.waiting import ask_until
from agent.cli.terminal.answer import asked, print_answer
from agent.cli.terminal.show import duration, moment, pair_lines
from agent.errors import Refused

_FAILOVER = {
    "wait": "waits for this machine if it is lost",
    "newest": "starts elsewhere from the newest copy if this machine is lost",
}
_EXITS = {"done": 0, "refused": 4}


def move(options: argparse.Namespace) -> int:
    client, id = client_of(options), options.id
    before = client.get(f"/api/instance/{id}/fleet")["machine"]
    answer = client.post(f"/api/instance/{id}/move", {"to": options.to} if options.to else {})
    if options.wait is None:
        follow = f"look at it: wa-agent fleet why {id}"
        return print_answer(options, answer, f"{id} moves away from {before}", follow)
    session = _until_moved(client, id, before, options.wait)
    return print_answer(options, session, f"{id} is on {session['machine']} now")


def _until_moved(client: Client, id: str, before: str, seconds: float) -> dict[str, Any]:
    def is_over(session: dict[str, Any]) -> bool:
        if session["machine"] != before:
            return True
        fleet = client.get("/api/fleet")
        # Only its own machine knows whether the move is still under way.
        if fleet["machine"] == before and all(it["id"] != id for it in fleet["moving"]):
            session = client.get(f"/api/instance/{id}/fleet")  # it may have ended in between
            if session["machine"] == before:
                raise Refused(
                    f"cannot move {id}: it runs on {before} as before; wa-agent events {id}",
                    code="not_moved",
                )
        return False

    path = f"/api/instance/{id}/fleet"
    return ask_until(lambda: client.get(path), is_over, seconds, f"{id} to move")


def release(options: argparse.Namespace) -> int:
    client, id = client_of(options), options.id
    confirmed = options.confirm
    if confirmed is None:
        confirmed = asked(
            f"If another machine of the fleet runs {id}, it runs twice, and WhatsApp may end its"
            " pairing. Make sure that no other machine has it.\nTo go on, type its id: "
        )
    if confirmed != id:
        raise Refused(
            f"cannot release {id}: another machine may run it; make sure that none does, and"
            f" confirm with: --confirm {id}",
            code="confirm",
        )
    answer = client.post(f"/api/instance/{id}/release", {"confirm": id})
    return print_answer(options, answer, f"{id} needs no lease now, and starts here")


def accept_copy(options: argparse.Namespace) -> int:
    client, id = client_of(options), options.id
    confirmed = options.confirm
    if confirmed is None:
        confirmed = asked(
            f"{id} starts on another machine from its stored copy, which lacks its last changes:"
            " if it was paired in them, it asks for a scan. Its newer folder goes to the trash of"
            " its machine when that is back.\nTo go on, type its id: "
        )
    if confirmed != id:
        raise Refused(
            f"cannot accept the copy of {id}: it lacks the session's last changes; bring its"
            f" machine back, or confirm with: --confirm {id}",
            code="confirm",
        )
    answer = client.post(f"/api/instance/{id}/accept-copy", {"confirm": id})
    follow = f"it starts elsewhere within seconds: wa-agent fleet why {id}"
    return print_answer(options, answer, f"the copy of {id} is accepted; {follow}")


def why(options: argparse.Namespace) -> int:
    session = client_of(options).get(f"/api/instance/{options.id}/fleet")
    age, size = session["copy_age_seconds"], session["copy_bytes"]
    copy = "none is stored" if age is None else f"{duration(age)} old, {size} bytes"
    if session["copy_problem"]:
        behind = duration(session["copy_behind_seconds"])
        copy += f"; it lacks changes of {behind}: {session['copy_problem']}"
    pairs = {
        "id": session["id"],
        "machine": session["machine"],
        "since": f"{moment(session['moved_at'])}: {session['why']}",
        "epoch": session["epoch"],
        "copy": copy,
        **({"waits": session["waits"]} if session.get("waits") else {}),
        "failover": f"{session['failover']}: {_FAILOVER.get(session['failover'], '')}",
    }
    return print_answer(options, session, *pair_lines(pairs))


def command(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/fleet/commands/{quote(options.command_id, safe='')}"
    if options.wait is None:
        stored = client.get(path)
    else:
        what = f"the command {options.command_id}"
        stored = ask_until(
            lambda: client.get(path), lambda it: it["state"] == "ended", options.wait, what
        )
    about = f"{stored['verb']} {stored['instance']}"
    age = duration(stored["age_seconds"])
    if stored["state"] == "ended":
        print_answer(options, stored, f"{about}: {stored['outcome']}. {stored['sentence']}".strip())
        return _EXITS.get(stored["outcome"], 1)
    begun = "runs on" if stored["state"] == "begun" else "waits for"
    return print_answer(
        options, stored, f"{about}: {begun} {stored['machine'] or 'its machine'}, asked {age} ago"
    )
