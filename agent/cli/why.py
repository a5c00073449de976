"""`why`: an instance's last events, its state with the proof, and its next steps, for a person who
was just called about it. `reasons`: why sessions end, with the agent's action for each."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from agent.cli.command import Subparsers, add_command, add_instance_command, client_of
from agent.cli.terminal import Table, clean, duration, moment, print_answer, soft
from agent.core.reasons import REASONS, reasons_table

_KEYS = ("code", "title", "does", "delay", "status", "advice")
_HEADS = ("REASON", "MEANING", "ACTION OF THE AGENT", "DELAY", "STATUS", "ADVICE")
_LATELY = 12
_KINDS = (
    "created enabled disabled operator paired scanned_again not_kept kept_again kept_aside "
    "passkey_required status restarted action outcome repair repaired repair_step repair_over "
    "canary verdict restored restoring snapshot_restored snapshot_failed memory imported "
    "first_messages replacing replaced kept"
)
"""Kinds of events, with blanks between."""
_NOTHING_WRONG = ("healthy", "disconnected", "not_found")
_WAIT_ENDS = {
    "incident": " (wa-agent incidents)",
    "memory_full": "; it starts when another worker stops (wa-agent list)",
    "disk_full": "; it starts as soon as the disk has space (wa-agent doctor)",
    "backend_circuit": " (wa-agent backends {backend}), or now: wa-agent backends reset {backend}",
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
    summary = "show an instance's last events, its state, and the agent's next steps"
    add_instance_command(commands, "why", why, summary)
    summary = "list the reasons why sessions end, with the agent's action for each"
    add_command(commands, "reasons", reasons, summary)


def reasons(options: argparse.Namespace) -> int:
    table = reasons_table()
    shown = [dict(zip(_KEYS, row, strict=True)) for row in table]
    return print_answer(options, shown, Table(_HEADS, table))


def why(options: argparse.Namespace) -> int:
    client = client_of(options)
    details = client.get(f"/api/instance/{options.id}/details")
    query = {"limit": 4 * _LATELY, "kind": _KINDS.split()}
    events = client.get(f"/api/instance/{options.id}/events", query)["events"]
    events = [event for event in events if not _repeats(event)][:_LATELY]
    now = datetime.now(UTC)
    parts = {
        "lately": [f"{moment(event['time'])}  {event['sentence']}" for event in reversed(events)],
        "now": list(present_state(details, now)),
        "next": list(next_steps(details, now)),
    }
    lines = []
    for title, sentences in parts.items():
        lines.append(soft(title))
        lines += ["  " + clean(sentence) for sentence in sentences or ["nothing"]]
    return print_answer(options, {"id": options.id, **parts}, *lines)


def _repeats(event: dict[str, Any]) -> bool:
    """A good verdict repeats the status before it."""
    return event["kind"] == "verdict" and event["detail"].get("verdict") in _NOTHING_WRONG


def present_state(details: dict[str, Any], now: datetime) -> Iterator[str]:
    """The state, the verdict, and the age of its proof."""
    since = seconds_from(details["since"], now)
    ago = f" for {duration(-since)}" if since is not None else ""
    health = details["health"]["verdict"]
    yield f"{details['id']} is {details['connection_status']}{ago}; health: {health}"
    if details["sentence"]:
        yield details["sentence"]
    if details["guess"]:
        yield f"a guess: {details['guess']}"
    if details["snapshot_failure"]:
        yield details["snapshot_failure"]
    if details["needs_passkey"]:
        yield "its account needs a passkey to link: no automatic step ends its pairing"
    yield from _proof(details)
    if (probe := details["probe"]) is not None and not probe["ok"]:
        yield f"its last ping failed ({probe['failures']} in a row): {probe['error']}"
    if (outbox := details.get("outbox")) and outbox["waiting"]:
        oldest = -(seconds_from(outbox["oldest"], now) or 0.0)
        many = "messages wait" if outbox["waiting"] > 1 else "message waits"
        why_not = f": {outbox['sentence']}" if outbox["sentence"] else ""
        yield f"{outbox['waiting']} {many} to be sent, the oldest for {duration(oldest)}{why_not}"
    if details["crypto_errors_lately"]:
        yield f"{details['crypto_errors_lately']} crypto errors lately"
    if reason := REASONS.get(details["reason"]):
        advice = reason.advice_for(details["id"])
        if advice not in details["sentence"]:
            yield f"advice: {advice}"


def _proof(details: dict[str, Any]) -> Iterator[str]:
    age, probe = details["proof_age_seconds"], details["probe"]
    if details["unit"]["state"] != "active":
        yield f"its worker is {details['unit']['state']} ({details['unit']['result']})"
    elif age is not None:
        yield f"proof: WhatsApp's last sign of life was {duration(age)} old at the last check"
    elif probe is not None and probe["ok"]:
        yield "its worker runs and answers; it has no connection to WhatsApp"


def next_steps(details: dict[str, Any], now: datetime) -> Iterator[str]:
    """The scan, incident, repair, attempt or circuit that it waits for."""
    if not details["should_run"]:
        id = details["id"]
        yield f"nothing: it is disabled or stopped (wa-agent enable {id}, or start {id})"
        return
    if waits_for := details["wait_reason"]:
        told = details["wait_sentence"] in details["sentence"]
        what = "it goes on by itself when that is over" if told else details["wait_sentence"]
        ends = _WAIT_ENDS.get(waits_for, "").format(backend=details["backend"])
        yield f"it waits for others: {what}{ends}"
    if (before := details["turns_before"]) is not None:
        yield f"its turn to start comes after {before} other sessions"
    repair = details["repair"]
    if repair is not None:
        well = details["connection_status"] == "CONNECTED"
        yield from _repair_words(repair, now, well=well, waits=bool(waits_for))
    if details["pairing_kept"]:
        yield f"no step ends its pairing: {details['pairing_kept']}"
    if details["reason"] == "ping_failed":
        yield "its next pings decide: the agent repairs it if they fail too"
    if details["circuit"] == "open":
        trial = f"one trial {_when(details['circuit_opens'], now)}"
        yield f"its circuit is open; {trial}, or now: wa-agent recover {details['id']}"
    elif details["circuit"] == "half_open":
        yield "its circuit is half open: one trial decides"
    if details["next_attempt"]:
        yield f"attempt {details['attempts'] + 1} {_when(details['next_attempt'], now)}"
    elif details["attempts"] and details["connection_status"] != "CONNECTED":
        times = details["attempts"]
        yield "the agent tried it once" if times == 1 else f"the agent tried it {times} times"
    reason = REASONS.get(details["reason"])
    if reason is not None and reason.hopeless and not _runs(repair):
        again = f"wa-agent start {details['id']}"
        yield f"the agent does nothing more: a person must act; one more try: {again}"
    elif (
        details["connection_status"] == "QR_REQUIRED"
        and details["health"]["verdict"] != "corrupted"
    ):
        yield f"a person must scan its code: wa-agent qr {details['id']} --watch"


def _repair_words(
    repair: dict[str, Any], now: datetime, *, well: bool, waits: bool
) -> Iterator[str]:
    if not _runs(repair):
        if not well and repair["ending"] in ("gave_up", "needs_person"):
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
    elif waits:
        yield f"{where}; the next step comes when it waits for others no more"
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
