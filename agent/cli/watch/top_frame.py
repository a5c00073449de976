"""One frame of `wa-agent top`: lines that fit the window, worst first. Pure."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.cli.terminal.show import clean, columns_of, pad
from agent.cli.watch.top_keys import Scroll

_TONES = {"bad": "1;31", "warn": "33", "busy": "36", "good": "32", "off": "2", "head": "2"}
_ORDER = ("bad", "warn", "busy", "good", "off")
_UNWELL = ("degraded", "stuck", "corrupted")
_STATUS = {
    "CONNECTED": "good",
    "QR_REQUIRED": "warn",
    "AUTH_FAILURE": "bad",
    "DISCONNECTED": "off",
}
_NOT_DOWN = {"not_looked_yet": "busy", "masked": "off"}
_COLUMNS = {
    **{"INSTANCE": 20, "STATUS": 13, "HEALTH": 12, "SINCE": 8, "PROOF": 7},
    **{"MEM": 6, "MSG/M": 6, "TRIES": 5, "NEXT": 8},
}
_GO_FIRST = ("MSG/M", "MEM", "PROOF", "TRIES", "SINCE", "HEALTH")
"""Columns that a narrow window leaves out, in this order."""
_SHORTER = 6
"""Columns that an id may lose before the verdict is left out."""
_WHY = 26
"""Columns that are left for the reason."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The agent's answers of one moment."""

    instances: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    system: Mapping[str, Any] | None = None
    health: Mapping[str, Any] = field(default_factory=dict)
    troubles: Sequence[Mapping[str, Any]] = ()
    incidents: Sequence[Mapping[str, Any]] = ()
    at_wall: float = field(default_factory=time.time)

    def as_json(self) -> dict[str, Any]:
        return {
            "instances": [*self.instances],
            "figures": dict(self.figures),
            "system": self.system,
            "health": dict(self.health),
            "troubles": [*self.troubles],
            "incidents": [*self.incidents],
        }


def tone_of(instance: Mapping[str, Any]) -> str:
    """bad, warn (waits for a person, a turn or its next try), busy, good or off."""
    if instance["health"]["verdict"] in _UNWELL:
        return "bad"
    if instance["connection_status"] == "DISCONNECTED" and instance["should_run"]:
        return _down(instance)
    tone = _STATUS.get(instance["connection_status"], "busy")
    return "warn" if tone == "busy" and instance["wait_reason"] and instance["should_run"] else tone


def _down(instance: Mapping[str, Any]) -> str:
    """It should run and is down: busy before its first check."""
    if instance["reason"] in _NOT_DOWN:
        return _NOT_DOWN[instance["reason"]]
    return "warn" if instance["next_attempt"] else "bad"


def worst_first(instances: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(
        instances, key=lambda instance: (_ORDER.index(tone_of(instance)), str(instance["id"]))
    )


def draw(
    sight: Sight,
    width: int,
    height: int,
    *,
    colours: bool,
    lost: str = "",
    now_wall: float | None = None,
    scroll: Scroll | None = None,
) -> list[str]:
    """At most `height` lines of at most `width` columns; height 0 is as high as needed."""
    now = time.time() if now_wall is None else now_wall
    scroll = Scroll() if scroll is None else scroll
    columns = _columns_for(width)
    lines = [(text, tone) for text, tone in _head(sight, lost, now)]
    if scroll.filter or scroll.typing:
        ends = "_" if scroll.typing else "  (Esc shows all)"
        lines.append((f"FILTER  {clean(scroll.filter)}{ends}", "warn"))
    lines.append((_row(columns, {name: name for name in (*columns, "WHY")}), "head"))
    rows = [instance for instance in worst_first(sight.instances) if _fits(instance, scroll.filter)]
    room = len(rows) if height == 0 else max(height - len(lines), 1)
    if len(rows) > room:
        room = max(room - 1, 1)
        scroll.first = min(max(scroll.first, 0), len(rows) - room)
    else:
        scroll.first = 0
    scroll.page = room
    shown = rows[scroll.first : scroll.first + room]
    lines += [
        (
            _row(columns, _cells(instance, sight.figures.get(str(instance["id"]), {}), now)),
            tone_of(instance),
        )
        for instance in shown
    ]
    if len(shown) < len(rows):
        more = len(rows) - scroll.first - len(shown)
        above = f"{scroll.first} above, " if scroll.first else ""
        lines.append((f"… {above or 'and '}{more} more  (arrows, PgUp, PgDn; / filters)", "head"))
    if not sight.instances:
        lines.append(("no instance yet: wa-agent create NAME --engine sandbox", "head"))
    elif not rows:
        lines.append(("no instance fits the filter", "head"))
    whole = lines if height == 0 else lines[:height]
    return [_tinted(_cut(text, width), tone if colours else "") for text, tone in whole]


def _head(sight: Sight, lost: str, now: float) -> list[tuple[str, str]]:
    tones = [tone_of(instance) for instance in sight.instances]
    agent = sight.health.get("agent", {})
    clock = datetime.fromtimestamp(now).strftime("%H:%M:%S")
    first = (
        f"wa-agent {clean(agent.get('version', ''))}  {clock}  {len(tones)} instances:"
        f" {tones.count('good')} well, {tones.count('bad')} in trouble,"
        f" {tones.count('warn')} waiting, {tones.count('busy')} on their way,"
        f" {tones.count('off')} off"
    )
    lines = [(first, "")]
    if sight.system is not None:
        lines.append((_machine(sight.system), "head"))
    if lost:
        age = duration(now - sight.at_wall)
        lines.append((f"NOT LIVE: {clean(lost)}; this picture is {age} old", "bad"))
    lines += [(f"INCIDENT  {clean(incident['sentence'])}", "bad") for incident in sight.incidents]
    # The worst come first.
    for trouble in sight.troubles[:3]:
        tone = "bad" if trouble["severity"] == "critical" else "warn"
        lines.append((f"TROUBLE  {clean(trouble['sentence'])}", tone))
    if (more := len(sight.troubles) - 3) > 0:
        lines.append((f"TROUBLE  and {more} more: wa-agent list --trouble", "warn"))
    return lines


def _machine(system: Mapping[str, Any]) -> str:
    used, total = size_text(system["usedMemory"]), size_text(system["totalMemory"])
    return (
        f"memory {used} of {total}  processor {_share(system['cpuUsage'])}"
        f"  disk free {size_text(system['diskFree'])}"
        f"  connections {system['activeConnections']}  errors {_share(system['errorRate'])}"
    )


def _cells(
    instance: Mapping[str, Any], figures: Mapping[str, Any], now: float
) -> Mapping[str, object]:
    upcoming = _wall(
        instance["circuit_opens"] if instance["circuit"] == "open" else instance["next_attempt"]
    )
    return {
        "INSTANCE": instance["id"],
        "STATUS": instance["connection_status"],
        "HEALTH": instance["health"]["verdict"],
        "SINCE": _age(instance["since"], now),
        "PROOF": _age(instance["proved"], now),
        "MEM": "-" if instance["memory_bytes"] is None else size_text(instance["memory_bytes"]),
        "MSG/M": figures.get("messagesPerMinute", "-"),
        "TRIES": instance["attempts"] or "-",
        "NEXT": "-" if upcoming is None else "in " + duration(max(upcoming - now, 0)),
        "WHY": instance["sentence"],
    }


def _fits(instance: Mapping[str, Any], filter: str) -> bool:
    """Whether every word of the filter is in its id, its state or its sentence."""
    text = " ".join(
        str(word)
        for word in (
            *(instance["id"], instance["connection_status"], instance["health"]["verdict"]),
            *(instance["reason"], instance["sentence"], instance.get("engine", "")),
            instance.get("backend") or "",
        )
    ).lower()
    return all(word in text for word in filter.lower().split())


def _columns_for(width: int) -> dict[str, int]:
    """The columns that leave room for the reason; a very narrow window shortens the id, too."""
    columns = dict(_COLUMNS)
    for name in _GO_FIRST:
        spare = _SHORTER if name == "HEALTH" else 0  # a shorter id is better than no verdict
        if _taken(columns) + _WHY <= width + spare:
            break
        del columns[name]
    missing = _taken(columns) + _WHY - width
    if missing > 0:
        columns["INSTANCE"] = max(columns["INSTANCE"] - missing, 8)
    return columns


def _taken(columns: Mapping[str, int]) -> int:
    return sum(columns.values()) + len(columns)


def _row(columns: Mapping[str, int], cells: Mapping[str, object]) -> str:
    fitted = [pad(_cut(clean(cells[name]), width), width) for name, width in columns.items()]
    return " ".join([*fitted, clean(cells["WHY"])])


def _cut(text: str, width: int) -> str:
    """No wider than `width` columns; … marks a cut."""
    if columns_of(text) <= width:
        return text
    start, taken = "", 0
    for letter in text:
        taken += columns_of(letter)
        if taken > width - 1:
            break
        start += letter
    return start + "…"


def _tinted(text: str, tone: str) -> str:
    return f"\x1b[{_TONES[tone]}m{text}\x1b[0m" if tone else text


def _wall(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _age(text: str | None, now: float) -> str:
    since = _wall(text)
    return "-" if since is None else duration(max(now - since, 0))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.0f} %"


def duration(seconds: float) -> str:
    """At most seven signs: 42s, 3m05s, 2h07m, 9d04h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def size_text(count: float | None) -> str:
    """At most five signs: 512M, 1.5G."""
    if count is None:
        return "-"
    for unit in "BKMG":
        if count < 1000 or unit == "G":
            break
        count /= 1024
    return f"{count:.1f}{unit}" if count < 10 and unit != "B" else f"{count:.0f}{unit}"
