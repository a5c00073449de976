"""Gather the facts of one instance: its unit, its link, a probe of its engine, its files."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.clock import boot_now
from agent.core.model import ProbeFact, SessionFiles, UnitState, UnitStatus
from agent.core.session import BACKEND_DOWN, STARTING, Run
from agent.core.words import SUSPECT, Claim, Happening
from agent.errors import EngineError, LinkError, Refused
from agent.link.client import Link, Listener, parse_claim
from agent.log import about, log
from agent.supervise.facts import FOLDER_LOST, Facts, WorkerLink
from agent.supervise.record import Means, take_in
from agent.vault.folders import why_no_start
from agent.vault.tree import inspect, may_log_in


def probe_interval(facts: Facts, now: float, usual: float) -> float:
    """A server need not report what becomes of a session that it connects: ask after a second, then
    ever less often."""
    fact = facts.run.claim
    if not facts.instance.backend or fact is None or fact.claim.status not in STARTING:
        return usual
    return min(max((now - fact.since) / 2, 1.0), usual)


def ask_server_soon(facts: Facts) -> None:
    now = boot_now()
    facts.next_probe = min(facts.next_probe, now + probe_interval(facts, now, float("inf")))


FIRST_LOOKS, FIRST_LOOK = 20, 0.05
"""Tries to get a new link's first claim, and the seconds before each."""


async def observe(means: Means, facts: Facts) -> None:
    """Look at everything that can be looked at now, each look with its own deadline."""
    note_unit(facts, await means.seats.status(facts))
    await _attach_if_it_runs(means, facts)
    now = boot_now()
    if facts.link is not None and now >= facts.next_probe:
        await probe(means, facts, deep=now >= facts.next_deep)
    if facts.instance.backend:
        # The session's server has the files; what it says of them is a claim.
        facts.folder.files = SessionFiles.WHOLE if facts.record.paired else SessionFiles.UNPAIRED
    elif facts.unit.runs:
        facts.folder.back, facts.folder.disk_problem = False, ""  # it is never stopped for it
    else:
        away = facts.folder.away_since is not None
        await asyncio.to_thread(_look_at_disk, means, facts)
        if away and facts.folder.away_since is None:  # failures meanwhile had this one cause
            facts.folder.back = True
            facts.record = replace(facts.record, start_asked=True)


def _look_at_disk(means: Means, facts: Facts) -> None:
    """A running engine owns its files; those of a stopped one are checked before a start."""
    root, record = means.registry.root, facts.record
    report = inspect(root / facts.id, facts.instance.engine, record.paired, record.account)
    facts.folder.files, facts.folder.problem = report.files, report.problem
    if report.identity_fault and facts.saved.identity is not None:
        log.error("%s; the agent writes it again", report.identity_fault, extra=about(facts.id))
        facts.saved.identity = None  # the pass writes it again before any start
    away = report.files in (SessionFiles.ABSENT, SessionFiles.UNREADABLE)
    facts.folder.away_since = (facts.folder.away_since or boot_now()) if away else None
    least, wanted = means.settings.config.start.disk_free, facts.should_run
    facts.folder.disk_problem = why_no_start(root, least) if wanted else ""


def note_unit(facts: Facts, unit: UnitStatus) -> None:
    """Take in the unit's state; forget what an ended run had said. A restart by the host is counted
    under the reason why the last run ended."""
    times = unit.restarts - facts.unit.restarts
    if facts.observed and times > 0 and unit.run:
        last_result = facts.unit.result if unit.result == "success" else unit.result
        reason = {"watchdog": "watchdog", "oom-kill": "oom"}.get(last_result, "crash")
        facts.counters.count("restarts", reason, times)
        facts.lost_because = facts.lost_because or f"worker_{reason}"
        facts.note("restarted", f"its worker ended ({reason}), and the host started it again")
    if unit.run != facts.unit.run:
        facts.link = None  # the link ends by itself with the process at its other end
    if unit.run != facts.unit.run or not unit.runs:
        facts.run = Run()
    facts.asked.restart_for = "its socket was removed" if unit.lost else facts.asked.restart_for
    facts.unit = unit


async def _attach_if_it_runs(means: Means, facts: Facts) -> None:
    active = facts.unit.state is UnitState.ACTIVE
    if facts.link is not None or not active or boot_now() < facts.run.next_attach:
        return
    run, pid, ears = facts.unit.run, facts.unit.main_pid, _Ears(means, facts, facts.unit.run)
    listener = Listener(ears.on_claim, ears.on_happening, ears.on_close)
    link: WorkerLink
    try:
        if facts.instance.backend:
            link = means.gate.backends.needed(facts).attach(facts.id, listener)
        else:
            link = await Link.open(means.seats.link_path(facts), facts.id, pid, listener)
        if link.hello.run != run:
            await link.close()
            raise LinkError("it was replaced meanwhile")  # the next pass sees the new unit
    except LinkError as error:
        facts.run.next_attach = boot_now() + 0.5
        log.debug("cannot attach to the worker of %s: %s", facts.id, error, extra=about(facts.id))
        return
    facts.link = link
    if facts.instance.backend:
        facts.run.linked_since = boot_now()
        if facts.run.claim is None:
            facts.next_probe = 0.0
        return
    means.registry.kept_more(facts.id)
    means.gate.fleet.attached(facts)
    for _ in range(FIRST_LOOKS):
        # A verdict between a worker's greeting and its first claim would be wrong.
        if facts.run.claim is not None or facts.link is None:
            break
        await asyncio.sleep(FIRST_LOOK)
    facts.run.linked_since = boot_now()
    # Spread over an interval: hundreds of workers would answer at once.
    first = means.first_probe + random.random() * means.settings.config.health.interval / 3
    # A worker that ran before the agent counts as adopted once it answered a probe.
    facts.next_probe = max(facts.next_probe, first) if facts.observed else 0.0


@dataclass(slots=True, eq=False, repr=False)
class _Ears:
    """Hears a worker, and drops what it says of a run that is not the present one."""

    means: Means
    facts: Facts
    opened_in: str

    def on_claim(self, run: str, claim: Claim) -> None:
        facts = self.facts
        if run != facts.unit.run:
            return
        if facts.heard(claim, boot_now()):
            ask_server_soon(facts)
        elif facts.at_rest:  # it repeats itself: its own probe was slow, or failed
            facts.next_probe = 0.0
        else:
            return
        self.means.gate.wake(facts.id)

    def on_happening(self, run: str, happening: Happening) -> None:
        if run == self.facts.unit.run:
            take_in(self.means, self.facts, happening)

    def on_close(self, _why: str) -> None:
        facts = self.facts
        self.means.registry.kept_more(facts.id)  # its last word of that may have been lost
        if facts.link is None or facts.link.hello.run != self.opened_in:
            return  # the end of a link that was replaced
        facts.link = facts.run.linked_since = None
        self.means.gate.wake(facts.id)


async def probe(means: Means, facts: Facts, *, deep: bool = False) -> None:
    """Ask the engine through its worker; an answer is a fact, and so is silence."""
    here = {} if facts.instance.backend else await means.registry.inodes(facts.id)
    if (link := facts.link) is None:
        return
    begun, rules = boot_now(), means.settings.config.health
    if deep:
        # From then on the next look is deep: the one after it might be too late.
        facts.next_deep = begun + rules.deep * 0.65
    facts.next_probe = begun + probe_interval(facts, begun, rules.interval)
    failures = facts.run.probe.failures if facts.run.probe else 0
    try:
        answer = await link.call("probe", {"deep": deep}, timeout=rules.timeout)
        claim = parse_claim(answer.get("claim"))
    except (EngineError, LinkError) as error:
        if error.code == BACKEND_DOWN:
            return  # its server's failure, known from the backend's checks; the proof ages
        now = boot_now()
        facts.run.probe = ProbeFact(False, now, now - begun, failures + 1, str(error))
        if facts.at_rest and not failures:  # before its proof is too old, and it logs in again
            await probe(means, facts, deep=deep)
        return
    now, files = boot_now(), answer.get("open_fds")
    facts.run.open_fds = files if type(files) is int and 0 <= files < 1 << 30 else None
    compare_folder(facts, answer.get("folder"), here)
    if claim.reason in ("session_foreign", "session_unreadable", "session_damaged"):
        # The worker refused the files that lay there; they may be back.
        asked = means.registry.root / facts.id, facts.instance.engine, facts.record.account
        if await asyncio.to_thread(may_log_in, *asked):
            facts.asked.restart_for = "its own files are back"
    if deep:
        detail = answer.get("detail")
        missing = detail.get("missing") if isinstance(detail, Mapping) else None
        # Parts are missing while the page loads.
        names = missing[:8] if isinstance(missing, list) and claim.status == "CONNECTED" else ()
        facts.lacks = tuple(it[:60] for it in names if isinstance(it, str) and it.isprintable())
    facts.run.probe = ProbeFact(True, now, now - begun)
    facts.counters.probes += 1
    facts.counters.probe_seconds += now - begun
    facts.counters.answers = (*facts.counters.answers[-9:], (now, now - begun))
    if link is facts.link and facts.heard(claim, now):
        ask_server_soon(facts)


# A session's folder was deleted or replaced under its live worker. Only that worker has the pairing
# as it is now, so no plan may end it; a person may restore a snapshot, and when the worker ends by
# itself, the newest snapshot takes the folder's place.


def compare_folder(facts: Facts, raw: object, here: Mapping[str, int]) -> None:
    """Compare the folder that a probe says its worker has with the one at its path."""
    folders = raw if isinstance(raw, Mapping) else {}
    told, deleted = folders.get("inodes"), folders.get("deleted")
    named = told.items() if isinstance(told, Mapping) else ()
    inodes = {name: ino for name, ino in named if type(ino) is int and isinstance(name, str)}
    gone = [name for name in inodes if isinstance(deleted, list) and name in deleted]
    other = [name for name, inode in inodes.items() if here.get(name) != inode]
    facts.run.folder_deleted = bool(gone)
    facts.run.folder_lost = f"its {gone[0]} was deleted under its worker" if gone else ""
    if other and not gone:
        facts.run.folder_lost = f"its {other[0]} was moved away or replaced under its worker"


def refuse_to_end(facts: Facts, doing: str) -> None:
    """Refuse an order that would end the worker with the only copy of the pairing."""
    if holds_the_only_copy(facts):
        why = f"{facts.run.folder_lost}, and only that worker still has the pairing"
        to_end = "To end the pairing all the same, log the session out or delete it"
        words = f"cannot {doing} {facts.id}: {why}; restore a snapshot in its place. {to_end}"
        raise Refused(words, code=FOLDER_LOST)


def holds_the_only_copy(facts: Facts) -> bool:
    claim = facts.run.claim
    lost = claim is not None and claim.claim.reason == SUSPECT  # its worker has it no more either
    return facts.run.folder_deleted and facts.unit.runs and facts.record.paired and not lost
