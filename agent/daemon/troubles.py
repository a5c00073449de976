"""Looks at the table of troubles every few seconds: what began and what is over goes into the
journal, and with it to the log, the WebSocket and the webhooks."""

import asyncio
import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from agent.clock import boot_now
from agent.core.health import is_wanted
from agent.core.model import Category, InstanceId, JournalEntry
from agent.core.troubles import TABLE, Key, Of, Severity, Sight, Trouble, Windows, counted_of, look
from agent.log import bound, going_on
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter, Family
from agent.supervise.assemble import Supervisor
from agent.webhooks.part import Webhooks

EVERY, IDLE = 10.0, 6
"""Seconds between two looks; while no row holds and all sessions are at rest, each sixth is one."""
READY_WITHIN = 60.0
"""Seconds that the first look waits for what is restored: before, everything looks down."""
SETTLE = 60.0
"""Seconds that a trouble of the last agent goes on at least."""
ROW, MOST_UNWRITTEN = "troubles", 1000


@dataclass(slots=True)
class Troubles:
    supervisor: Supervisor
    exporter: Exporter
    reader: Reader
    sending: Sending
    webhooks: Webhooks
    _present: Mapping[Key, Trouble] = field(init=False, default_factory=dict)
    windows: Windows = field(init=False, default_factory=Windows)
    _unwritten: list[JournalEntry] = field(init=False, default_factory=list)
    """Entries that the disk has not taken yet; each look tries them again."""
    _told: dict[str, str] = field(init=False, default_factory=dict)

    def present(self) -> Collection[Trouble]:
        """Return the troubles that have begun."""
        return [one for one in self._present.values() if one.begun_wall is not None]

    def families(self) -> Iterator[Family]:
        rows = []
        for one in self.present():
            labels = {"kind": one.row.name, "severity": one.row.severity.value}
            rows.append((labels | ({one.row.of.value: one.who} if one.who else {}), 1))
        yield Family("wa_trouble", "1 for each trouble that there is.", rows)

    async def run(self) -> None:
        await self._take_over()
        for _ in range(int(READY_WITHIN / 0.2)):
            if self.supervisor.status()["ready"]:
                break
            await asyncio.sleep(0.2)
        for turn in count():
            sessions = self.supervisor.registry.facts.values()
            if self._present or turn % IDLE == 0 or not all(each.at_rest for each in sessions):
                await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        before = self._present.keys()
        self._present, begun, over = look(TABLE, self._present, self._sight())
        entries = [_entry("trouble", one, one.sentence) for one in begun]
        entries += [_entry("trouble_over", one, f"it is over: {one.sentence}") for one in over]
        for entry in entries:
            bad, begins = entry.detail["severity"] == Severity.CRITICAL, entry.kind == "trouble"
            level = (logging.ERROR if bad else logging.WARNING) if begins else logging.INFO
            bound(entry.category, entry.instance).log(level, "%s", entry.sentence)
        self._unwritten = [*self._unwritten, *entries][-MOST_UNWRITTEN:]
        if self._unwritten or self._present.keys() != before:
            # For the next agent: a restart ends no trouble, and no time to wait begins again.
            ahead, kept = time.time() - boot_now(), self._present.values()
            rows = [(*it.key, it.since + ahead, it.begun_wall, it.value) for it in kept]
            with going_on("cannot write what is wrong", self._told):
                await self.supervisor.store.put_facts({ROW: json.dumps(rows)})
                await self.supervisor.store.append(*self._unwritten)
                self._unwritten = []

    def _sight(self) -> Sight:
        config, registry = self.supervisor.settings.config, self.supervisor.registry
        (done, bad), kept, now = self.exporter.http.counted(), self.reader.figures(), boot_now()
        wanted = {str(id): view for id in registry.facts if is_wanted(view := registry.present(id))}
        counted: dict[str, Mapping[str, float]] = {"": {"requests": done, "requests_failed": bad}}
        for id in map(InstanceId, wanted):
            counted[id] = {
                **counted_of(wanted[id]),
                "lost": kept[id]["lost"] if id in kept else 0,
                "sends_failed": self.sending.failed(id),
            }
        self.windows.note(counted, now)
        lacks: Iterable[Collection[str]] = getattr(self.supervisor.gate.fleet, "troubles", tuple)()
        return Sight(
            now,
            time.time(),
            wanted,
            {backend.name: backend for backend in self.supervisor.backends.views()},
            {group: code for group, code in self.supervisor.status()["incidents"].items() if code},
            self.exporter.machine.values(),
            {id: since for id, it in self.sending.senders.items() if (since := it.oldest())},
            self.webhooks.oldest(),
            config.troubles,
            config.health,
            config.memory,
            self.windows,
            not_kept={id for id, counts in kept.items() if counts["refused"]},
            database_lost=self.supervisor.store.wrong,
            outbox_lost=self.sending.refused or self.sending.lost,
            fleet=next((f"{machine}: {cause}" for machine, id, cause in lacks if not id), ""),
        )

    async def _take_over(self) -> None:
        with going_on("cannot read what was wrong"):
            kept = await self.supervisor.store.get_fact(ROW)
            self._present = {one.key: one for one in _kept_in(kept or "[]")}


def _kept_in(text: str) -> Iterator[Trouble]:
    rows, now = {row.name: row for row in TABLE}, boot_now()
    try:
        for name, who, wall, begun, value in json.loads(text):
            past = max(time.time() - wall, 0.0)  # the clock may have been set back
            # One that waits, and would have begun while no agent looked, waits again from now on.
            if (row := rows.get(name)) and (begun or past < row.wait):
                stays = now + max(SETTLE, row.wait + row.window - past) if begun else 0.0
                yield Trouble(row, str(who), now - past, now, str(value), begun, stays)
    except (ValueError, TypeError):
        return


def _entry(kind: str, trouble: Trouble, sentence: str) -> JournalEntry:
    row, session = trouble.row, trouble.row.of is Of.SESSION
    return JournalEntry(
        kind,
        sentence,
        Category.HEALTH if session else Category.SYSTEM,
        InstanceId(trouble.who) if session else None,
        time.time(),
        {
            "trouble": row.name,
            "severity": row.severity.value,
            row.of.value: trouble.who,
            "advice": row.advice.format(who=trouble.who),
        },
    )
