"""The output of a run: its table, its audit log, and the totals of all runs."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from agent.engines.whaticket.keys.files import cause_of
from agent.engines.whaticket.once.state_file import Stats
from agent.errors import ConfigError

_ROTATE_AT = 10 << 20


@dataclass(slots=True)
class Voice:
    audit: Path
    debug: bool = False
    dry_run: bool = False
    shown: bool = False
    """The table has begun."""

    def open(self) -> None:
        """The audit log can be written; the old one is put aside when it is large."""
        if self.dry_run:
            return
        try:
            self.audit.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.audit.open("a"):
                pass
            if self.audit.stat().st_size > _ROTATE_AT:
                self.audit.replace(self.audit.with_name(self.audit.name + ".1"))
        except OSError as error:
            raise ConfigError(f"cannot write {self.audit}: {cause_of(error)}") from error

    def note(self, level: str, session: str, text: str) -> None:
        """Into the audit log; with --debug also to stderr."""
        named = f" [{session}]" if session else ""
        line = f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] [{level}] [RECOVERY]{named} {text}\n"
        if not self.dry_run:
            with self.audit.open("a", encoding="utf-8") as file:
                file.write(line)
        if self.debug:
            sys.stderr.write(line)

    def warn(self, text: str) -> None:
        """For who reads the output and for the audit log alike."""
        if not self.debug:
            complain(text)
        self.note("WARN", "", text)

    def row(self, session: str, why: str, result: str) -> None:
        if not self.shown:
            self.shown = True
            self._line("ID", "WHY", "RESULT")
        self._line(session, why, result)

    def _line(self, session: str, why: str, result: str) -> None:
        sys.stdout.write(f"{session:<16} {why:<34} {result}\n")
        sys.stdout.flush()


def complain(text: str) -> None:
    sys.stderr.write(f"auto-fix-sessions: {text}\n")


def show_stats(stats: Stats) -> None:
    healed = stats.repaired + stats.cleaned
    ended = healed + stats.failed
    rows = (
        ("checked", stats.checked),
        ("mean time of a check", _mean(stats.check_seconds, stats.checked)),
        ("repaired", stats.repaired),
        ("cleaned", stats.cleaned),
        ("failed", stats.failed),
        ("mean time to repair", _mean(stats.repair_seconds, healed)),
        ("success rate", f"{100 * healed / ended:.0f}%" if ended else "-"),
        ("ended needing a person", stats.needed_person),
    )
    for name, value in rows:
        sys.stdout.write(f"{name:<28} {value}\n")


def _mean(seconds: float, count: int) -> str:
    return f"{seconds / count:.1f} s" if count else "-"
