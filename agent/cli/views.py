"""`list`, `show`, and `why` for a person who was just called: an instance's last events, its state
with the proof, and its next steps. `top`: the table of `list`, live in a terminal, those in trouble
first, until Ctrl+C. `reasons`: why sessions end, and what the agent does. `events`: the history of
instances and agent; `logs`: what a session's worker and its program print."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Commands, Options, Table, clean, duration, moment, say, shown, soft
from agent.core.reasons import REASONS, reasons_table
from agent.core.words import counted
from agent.errors import AgentUnreachable, InvalidRequest, Refused
from agent.host.units import INSTANCES_SLICE

if TYPE_CHECKING:
    from rich.console import Group

_HEADS = {
    **{"REASON": "code", "MEANING": "title", "ACTION OF THE AGENT": "does", "DELAY": "delay"},
    **{"STATUS": "status", "ADVICE": "advice"},
}
_LATELY = 12
_KINDS = (
    "created enabled disabled operator paired scanned_again not_kept kept_again kept_aside "
    "passkey_required status restarted action outcome repair repaired repair_step repair_over "
    "canary verdict restored restoring snapshot_restored snapshot_failed memory imported "
    "replacing replaced kept arrived"
)
"""Kinds of events, with blanks between."""
_NOTHING_WRONG = ("healthy", "disconnected", "not_found")
"""Verdicts that repeat the status before them."""


def add(commands: Commands) -> None:
    commands.add("list", list_instances, "--status CONNECTED")
    commands.one("show", show)
    commands.one("why", why)
    commands.add("reasons", reasons)
    commands.add("top", top)
    commands.add("events", events, "sales -f", limit=50)
    commands.one("logs", logs, "-f")


def list_instances(options: Options) -> int:
    """List the instances.

    --status STATUS…: only this status; may be repeated
    --trouble: instead what is wrong now, with advice; exit status 1 if anything is
    """
    if options.trouble:
        if options.status:
            raise InvalidRequest("cannot list troubles: --trouble goes with no other option")
        told = options.ask("GET /api/troubles")["troubles"]
        head = "{severity} {kind} since {}".format
        rows = [{head(moment(it["since"]), **it): it["sentence"], "": it["advice"]} for it in told]
        nothing = "" if told else "no troubles; what has just begun: wa-agent list, wa-agent doctor"
        return options.print({"troubles": told}, *rows, nothing, good=not told)
    return options.print_rows([*options.client.instances(status=options.status)], COLUMNS, NOTHING)


def _why(it: dict[str, Any]) -> str:
    left = seconds_from(it["circuit_opens" if it["circuit"] == "open" else "next_attempt"])
    tried = f"next try in {duration(left)}" if left >= 1 else ""
    return "; ".join(filter(None, (it["sentence"].rstrip("."), tried, it["snapshot_failure"])))


def _enabled(instance: dict[str, Any]) -> str:
    word, override = "yes" if instance["enabled"] else "no", instance["override"]
    return word if override == "none" else f"{word}, {override}"


COLUMNS = {
    **{"ID": "id", "ENGINE": "engine", "STATUS": "connection_status"},
    **{"HEALTH": lambda instance: instance["health"]["verdict"], "ENABLED": _enabled},
    **{"UPTIME": "uptime_seconds", "MEMORY": "memory_bytes", "WHY": _why},
}
NOTHING = "no instances"


def show(options: Options) -> int:
    """Show everything about an instance."""
    details, _, lines = _look(options)
    return options.print(details, *lines, soft("fields"), dict(_flat(details)))


def _flat(told: dict[str, Any], above: str = "  ") -> Iterator[tuple[str, object]]:
    for name, value in told.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = (", ".join(f"{k} {shown(k, it)}" for k, it in row.items()) for row in value)
            value = dict(zip(map(str, range(1, len(value) + 1)), rows, strict=True))
        if isinstance(value, dict) and name != "events":
            yield from _flat(value, f"{above}{name}.")
        elif value and name != "events":
            yield above + name, shown(above + name, value)


def reasons(options: Options) -> int:
    """List the reasons why sessions end, with the agent's action for each."""
    rows = [dict(zip(_HEADS.values(), row, strict=True)) for row in reasons_table()]
    return options.print_rows(rows, _HEADS, "")


def why(options: Options) -> int:
    """Show an instance's last events, its state, and the agent's next steps."""
    _, parts, lines = _look(options)
    return options.print({"id": options.id, **parts}, *lines)


def _look(options: Options) -> tuple[dict[str, Any], dict[str, list[str]], list[str]]:
    """The details of a session, and what they mean: by title, and as lines."""
    details = options.ask("GET details")
    events = options.ask("GET events", limit=4 * _LATELY, kind=_KINDS.split())["events"]
    events = [event for event in events if event["detail"].get("verdict") not in _NOTHING_WRONG]
    parts = {
        "lately": [f"{moment(it['time'])}  {it['sentence']}" for it in reversed(events[:_LATELY])],
        "now": list(filter(None, present_state(details))),
        "next": list(filter(None, next_steps(details))),
    }
    lines = []
    for title, sentences in parts.items():
        lines += [soft(title), *("  " + clean(it) for it in sentences or ["nothing"])]
    return details, parts, lines


def present_state(details: dict[str, Any]) -> Iterator[str]:
    """The state, the verdict, and the age of its proof."""
    probe, age = details["probe"], details["proof_age_seconds"]
    since = duration(-seconds_from(details["since"]))
    state = f"{details['id']} is {details['connection_status']} for {since}"
    yield f"{state}; health: {details['health']['verdict']}"
    yield details["sentence"]
    if details["guess"]:
        yield f"a guess: {details['guess']}"
    yield details["snapshot_failure"]
    if details["needs_passkey"]:
        yield "its account needs a passkey to link: no automatic step ends its pairing"
    if details["unit"]["state"] != "active":
        yield f"its worker is {details['unit']['state']} ({details['unit']['result']})"
    elif age is not None:
        yield f"proof: WhatsApp's last sign of life came {duration(age)} ago"
    if probe is not None and not probe["ok"]:
        yield f"its last ping failed ({probe['failures']} in a row): {probe['error']}"
    if (outbox := details.get("outbox")) and outbox["waiting"]:
        oldest = duration(-seconds_from(outbox["oldest"]))
        yield f"{counted(outbox['waiting'], 'message')} to send, the oldest waits for {oldest}"
        yield outbox["sentence"]
    if details["crypto_errors_lately"]:
        yield f"{details['crypto_errors_lately']} crypto errors lately"
    if reason := REASONS.get(details["reason"]):
        advice = reason.advice_for(details["id"])
        yield f"advice: {advice}" if advice not in details["sentence"] else ""


def next_steps(details: dict[str, Any]) -> Iterator[str]:
    """The scan, incident, repair, attempt or circuit that it waits for."""
    id, repair, status = details["id"], details["repair"], details["connection_status"]
    if not details["should_run"]:
        yield f"nothing: it is disabled or stopped (wa-agent enable {id}, or start {id})"
        return
    if details["wait_reason"]:
        yield f"it waits for others: {details['wait_sentence']}"
    if (before := details["turns_before"]) is not None:
        yield f"its turn to start comes after {counted(before, 'other session')}"
    if repair is not None and not repair["ending"]:
        step, begun = repair["step"].replace("_", " "), _when(repair["started"])
        stage = {
            "acting": f"try {repair['tries']}, under way",
            "settling": f"try {repair['tries']}, done; the next checks show whether it helped",
        }.get(repair["stage"], f"the next step {_when(repair['not_before'])}")
        goal = repair["goal"].replace("_", " ")
        yield f"a repair ({goal}) runs since {begun}, round {repair['round']}, step {step}: {stage}"
    elif repair is not None and status != "CONNECTED":
        yield f"its repair ended {_when(repair['ended'])}: {repair['ending'].replace('_', ' ')}"
    if details["pairing_kept"]:
        yield f"no step ends its pairing: {details['pairing_kept']}"
    if details["circuit"] == "open":
        yield f"paused: one trial {_when(details['circuit_opens'])}, or now: wa-agent recover {id}"
    if details["next_attempt"]:
        yield f"attempt {details['attempts'] + 1} {_when(details['next_attempt'])}"
    if until := details.get("outbox", {}).get("until"):
        yield f"what waits to be sent is tried {_when(until)}"
    if status == "CONNECTED" and (limit := details.get("proof_limit_seconds")):
        yield f"the agent asks for a new proof before this one is {duration(limit)} old"
        if not details["backend"]:
            yield f"a hung worker is seen after {duration(details['watchdog_seconds'])} of silence"
    reason, idle = REASONS.get(details["reason"]), repair is None or repair["ending"]
    verdict = details["health"]["verdict"]
    waits = details["next_attempt"] or details["wait_reason"] or details["circuit"] == "open"
    given_up = status == "DISCONNECTED" and not waits and details["reason"] != "not_looked_yet"
    if details["reason"] == "session_unreadable":
        yield f"it starts within a second once its folder can be used; look: wa-agent health {id}"
    elif given_up and details["reason"] == "temporary_ban" and verdict == "disconnected":
        yield "its ban is over: it tries again now"
    elif idle and (given_up or (reason is not None and reason.hopeless)):
        yield f"the agent does nothing more: a person must act; one more try: wa-agent start {id}"
    elif status == "QR_REQUIRED" and verdict != "corrupted":
        yield f"a person must scan its code: wa-agent qr {id} --watch"
    elif seconds_from(details.get("phase_ends")) > 0:
        yield f"the agent acts {_when(details['phase_ends'])} if it is no further by then"
    elif verdict == "disconnected" and idle and not waits:
        yield "it is on its way; the agent acts once that takes too long"


def _when(text: str | None) -> str:
    if (seconds := seconds_from(text)) < 0:
        return f"{duration(-seconds)} ago"
    return f"in {duration(seconds)}" if seconds >= 1 else "now"


def seconds_from(text: str | None) -> float:
    """Seconds from now to a time of the API; negative when it is past."""
    return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds() if text else 0.0


EVERY = 2.0
_STYLES = {
    **{"in trouble": "bold red", "waiting": "yellow", "on its way": "cyan"},
    **{"well": "green", "off": "dim"},
}
"""By tone, the worst first."""


def top(options: Options) -> int:
    """Watch every instance live, those in trouble first, until Ctrl+C."""
    drawn = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if drawn and not options.json:
        return _watch(options.client)
    rows = worst_first(options.client)
    return options.print({"instances": rows}, Table(rows, COLUMNS) if rows else NOTHING)


def worst_first(client: Client) -> list[dict[str, Any]]:
    return sorted(client.instances(), key=lambda row: ([*_STYLES].index(tone_of(row)), row["id"]))


def tone_of(instance: dict[str, Any]) -> str:
    status, reason = instance["connection_status"], instance["reason"]
    if instance["health"]["verdict"] in ("degraded", "stuck", "corrupted"):
        return "in trouble"
    if not instance["should_run"] or reason == "masked":
        return "off"
    if status == "CONNECTED":
        return "well"
    if status == "QR_REQUIRED" or instance["next_attempt"] or instance["wait_reason"]:
        return "waiting"
    down = status in ("DISCONNECTED", "AUTH_FAILURE") and reason != "not_looked_yet"
    return "in trouble" if down else "on its way"


def frame(rows: list[dict[str, Any]], lost: str = "") -> "Group":
    from rich import console, text

    tones = [tone_of(row) for row in rows]
    counts = Counter(tones)
    parts = ", ".join(f"{counts[tone]} {tone}" for tone in _STYLES if counts[tone]) or NOTHING
    head = f"{time.strftime('%H:%M:%S')}  {counted(len(rows), 'instance')}: {parts}"
    table = Table(rows, COLUMNS).drawn([_STYLES[tone] for tone in tones])
    notice = [text.Text(clean(lost), "bold red", no_wrap=True, overflow="ellipsis")] if lost else []
    return console.Group(text.Text(head, no_wrap=True, overflow="ellipsis"), *notice, table)


def _watch(client: Client) -> int:
    from rich.live import Live

    # Each end restores the terminal; a screen that is suspended would have to be entered again.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    rows, seen, lost = list[dict[str, Any]](), time.monotonic(), ""
    with Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                rows, seen, lost = worst_first(client), time.monotonic(), ""
            except AgentUnreachable as error:
                lost = f"{duration(time.monotonic() - seen)} old: {error}"
            live.update(frame(rows, lost), refresh=True)
            time.sleep(EVERY)


# The history, and the workers' lines

_LOOK_EVERY = 1.0
_AGAIN = ("not_running", "slow", "stopping", "no_lease", "owner_away", "owner_changed")
"""Codes of a session that is expected back, on this machine or another one."""


def events(options: Options) -> int:
    """Show the history of instances and agent.

    [ID]: only this instance
    -f/--follow: keep printing new events
    -n/--limit N: number of events, default 50
    --kind KIND…: only this kind
    """
    query = {"kind": options.kind, "limit": options.limit}
    for page in follow(options, "events" if options.id else "/api/events", query):
        # The newest come first without a cursor.
        for event in page["events"] if "after" in query else page["events"][::-1]:
            head = f"{moment(event['time'])} [{event['category']}] [{event['instance'] or '-'}]"
            options.print_line(event, clean(f"{event['kind']}: {event['sentence']}"), clean(head))
            query["after"] = event["cursor"]
        query |= {"limit": 1000, "after": query.get("after", 0)}
    return 0


def follow(options: Options, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An answer, and with --follow the later ones: its reader writes into `query` where to go on.
    A restart of the agent or of the session's worker only delays them."""
    said, patient = "", False
    while True:
        try:
            page = options.ask(f"GET {path}", **query)
        except (AgentUnreachable, AgentSaidNo) as error:
            if not patient or (isinstance(error, AgentSaidNo) and error.code not in _AGAIN):
                raise
            if said != str(error):
                say(f"wa-agent: {error}; waiting")
            said = str(error)
        else:
            yield page
            if not (options.follow or page.get("more")):
                return
            said, patient = "", options.follow
            if page.get("more") or "wait" in query:
                continue  # it comes at once, or is waited for there
        time.sleep(_LOOK_EVERY)


def logs(options: Options) -> int:
    """Print the last lines of a session's worker, and of the program that it runs.

    -f/--follow: keep printing new lines
    """
    if backend := options.ask(f"GET /api/instance/{options.id}").get("backend"):
        words = f"it is a session of the server {backend}; see that one's log, and the journal"
        raise Refused(f"cannot print lines of {options.id}: {words}", code="not_supported")
    query: dict[str, Any] = {}
    for found in follow(options, "worker-lines", query):
        if found["lines"] is None:
            return _from_journal(options)
        if found["cut"]:
            say("wa-agent: the log was shortened; lines may be missing here")
        for line in found["lines"]:
            if line == "Fatal Python error: Aborted":  # as faulthandler begins
                say("wa-agent: the worker hung, and its watchdog ended it; here is where it stood:")
            options.print_line({"line": line}, clean(line))
        query["after"] = found["next"]
    return 0


def _from_journal(options: Options) -> int:
    """As the caller: the agent's own user may not read the journal."""
    unit = f"wa-instance@{options.id}.service"
    command = ["journalctl", "--no-pager", "-q", *(["-f"] if options.follow else [])]
    command += ["-n", "60", "-o", "json" if options.json else "short-iso"]
    # Lines of the session's own worker, the manager's about that worker, and a pack's about it.
    command += [f"_SYSTEMD_UNIT={unit}", "+", "_PID=1", f"UNIT={unit}"]
    command += ["+", f"_SYSTEMD_SLICE={INSTANCES_SLICE}", f"WA_INSTANCE={options.id}"]
    if options.client.url:
        words = f"on the machine that it runs on: {' '.join(command)}"
        raise Refused(f"cannot print lines of {options.id}: {words}", code="not_supported")
    return subprocess.run(command, check=False).returncode
