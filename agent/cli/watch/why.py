"""What happened to an instance lately, what is wrong now with its proof, what comes next and when.

In plain words, for a person who was just called about it.
"""

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from agent.cli.command import Subparsers, add_command, add_id, client_of, wants_json
from agent.cli.terminal.show import clean, colour, duration, moment, print_json
from agent.core.reasons import REASONS

_LATELY = 12
_ID = re.compile(r"\bID\b")
"""Stands for the instance in an advice."""
_TELLING = (
    *("created", "enabled", "disabled", "operator", "paired", "status", "restarted", "action"),
    *("outcome", "repair", "repaired", "repair_step", "repair_over", "canary", "verdict"),
    *("restored", "restoring", "snapshot_restored", "snapshot_failed", "memory"),
    *("imported", "first_messages", "replacing", "replaced", "kept"),
    *("invited", "invite_revoked", "invite_used"),
)
_NOTHING_WRONG = ("healthy", "disconnected", "not_found")
_HOLD_ENDS = {
    "incident": " (wa-agent incidents)",
    "memory_full": "; it starts when another worker stops (wa-agent list)",
    "disk_full": "; it starts as soon as the disk has space (wa-agent doctor)",
}
_STEPS = {
    "reconnect": "reconnect inside its worker",
    "restart": "restart its worker",
    "regenerate_keys": "regenerate the failing peers' keys",
    "back_up": "make a backup",
    "restore": "restore its newest good snapshot",
    "logout_restart": "log it out and start it again",
    "cleanup": "retire its session and offer a new code",
}


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "why",
        why,
        "say in plain words what happened to an instance and what comes next",
        "wa-agent why sales",
    )
    add_id(parser)


def why(options: argparse.Namespace) -> int:
    client = client_of(options)
    found = client.get(f"/api/instance/{options.id}/details")
    query = {"limit": 4 * _LATELY, "kind": list(_TELLING)}
    events = client.get(f"/api/instance/{options.id}/events", query)["events"]
    events = [one for one in events if not _repeats(one)][:_LATELY]
    now = datetime.now(UTC)
    told = {
        "lately": [f"{moment(one['time'])}  {one['sentence']}" for one in reversed(events)],
        "now": list(what_is(found, now)),
        "next": list(what_comes(found, now)),
    }
    if wants_json(options):
        print_json({"id": options.id, **told})
        return 0
    for title, lines in told.items():
        print(colour(title, "soft"))
        for line in lines or ["nothing"]:
            print("  " + clean(line))
    return 0


def _repeats(event: dict[str, Any]) -> bool:
    """A verdict that finds nothing wrong says again what the status before it said."""
    return event["kind"] == "verdict" and event["detail"].get("verdict") in _NOTHING_WRONG


def what_is(found: dict[str, Any], now: datetime) -> Iterator[str]:
    """The state, the finding, and how fresh the proof of it is."""
    since = seconds_from(found["since"], now)
    ago = f" for {duration(-since)}" if since is not None else ""
    health = found["health"]["verdict"]
    yield f"{found['id']} is {found['connection_status']}{ago}; health: {health}"
    if found["sentence"]:
        yield found["sentence"]
    yield from _proof(found)
    if (probe := found["probe"]) is not None and not probe["ok"]:
        yield f"its last ping failed ({probe['failures']} in a row): {probe['error']}"
    if found["crypto_errors_lately"]:
        yield f"{found['crypto_errors_lately']} crypto errors lately"
    if reason := REASONS.get(found["reason"]):
        yield f"what to know: {for_instance(reason.advice, found['id'])}"


def for_instance(advice: str, id: str) -> str:
    """With the commands as they are to be typed for this one."""
    return _ID.sub(lambda _: id, advice)


def _proof(found: dict[str, Any]) -> Iterator[str]:
    age, probe = found["proof_age_seconds"], found["probe"]
    if found["unit"]["state"] != "active":
        yield f"its worker is {found['unit']['state']} ({found['unit']['result']})"
    elif age is not None:
        yield f"proof: WhatsApp's last sign of life was {duration(age)} old at the last check"
    elif probe is not None and probe["ok"]:
        yield "its worker runs and answers; it has no connection to WhatsApp"


def what_comes(found: dict[str, Any], now: datetime) -> Iterator[str]:
    """Whatever waits: a person, an incident, the repair's next step, a try, the circuit."""
    if not found["should_run"]:
        id = found["id"]
        yield f"nothing: it is disabled or stopped (wa-agent enable {id}, or start {id})"
        return
    if hold := found["hold"]:
        yield f"it waits for others: {found['hold_sentence']}{_HOLD_ENDS.get(hold, '')}"
    if (before := found["turns_before"]) is not None:
        yield f"it waits for its turn, {before} before it"
    repair = found["repair"]
    if repair is not None:
        yield from _repair_words(repair, now, well=found["connection_status"] == "CONNECTED")
    if found["reason"] == "ping_failed":
        yield "its next pings decide: the agent repairs it if they fail too"
    if found["circuit"] == "open":
        trial = f"one trial {_when(found['circuit_opens'], now)}"
        yield f"its circuit is open; {trial}, or now: wa-agent recover {found['id']}"
    elif found["circuit"] == "half_open":
        yield "its circuit is half open: one trial decides"
    if found["next_attempt"]:
        yield f"attempt {found['attempts'] + 1} {_when(found['next_attempt'], now)}"
    elif found["attempts"] and found["connection_status"] != "CONNECTED":
        times = found["attempts"]
        yield "the agent tried it once" if times == 1 else f"the agent tried it {times} times"
    reason = REASONS.get(found["reason"])
    if reason is not None and reason.hopeless and not _runs(repair):
        yield "nothing by itself: a person must act"
    elif found["connection_status"] == "QR_REQUIRED" and found["health"]["verdict"] != "corrupted":
        yield f"a person must scan its code: wa-agent qr {found['id']} --watch"


def _repair_words(repair: dict[str, Any], now: datetime, *, well: bool) -> Iterator[str]:
    if not _runs(repair):
        if not well and repair["ending"] in ("gave_up", "needs_person", "needs_scan"):
            words = repair["ending"].replace("_", " ")
            yield f"its last repair ended {_when(repair['ended'], now)}: {words}"
        return
    step, number = repair["step"], repair["round"]
    begun = "no step yet" if step == "none" else _STEPS.get(step, step)
    where = f"a repair runs since {_when(repair['started'], now)}, round {number}: {begun}"
    if repair["stage"] == "acting":
        yield f"{where}, try {repair['tries']}, under way"
    elif repair["stage"] == "settling":
        yield f"{where}, try {repair['tries']}, done; the next checks show whether it helped"
    else:
        yield f"{where}; the next step {_when(repair['not_before'], now)}"


def _runs(repair: dict[str, Any] | None) -> bool:
    return repair is not None and not repair["ending"]


def _when(text: str | None, now: datetime) -> str:
    seconds = seconds_from(text, now)
    if seconds is None:
        return "now"
    if seconds < 0:
        return f"{duration(-seconds)} ago"
    return f"in {duration(seconds)}" if seconds >= 1 else "now"


def seconds_from(text: str | None, now: datetime) -> float | None:
    """Seconds from now to a time of the API; negative when it is past."""
    if not text:
        return None
    try:
        return (datetime.fromisoformat(text) - now).total_seconds()
    except ValueError:
        return None
