"""The machine's settings against what many long connections need: shown, written, taken back.

All is below `root`, so that a test (or an image that is being built) can stand in for the machine.
One drop-in is written; it also has the values from before.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Refused, WaError
from agent.files import write_whole
from agent.host.units import AGENT_SERVICE, BACKENDS, INSTANCES

DROP_IN = Path("etc/sysctl.d/60-wa-agent.conf")
HEAD = "# Written by `wa-agent tune --apply`; `wa-agent tune --undo` removes it.\n"
_BEFORE = "# before: "
_FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d")
_UNIT_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kernel setting: a good value, and whether another one is good too."""

    name: str
    needed: str
    enough: Callable[[str], bool]
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    now: str
    needed: str
    good: bool
    why: str
    written: bool = True
    """False: `--apply` leaves it; `why` says what sets it."""


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def _at_least(least: int) -> Callable[[str], bool]:
    return lambda text: _numbers(text)[0] >= least


def _at_most(most: int) -> Callable[[str], bool]:
    return lambda text: _numbers(text)[0] <= most


def _wide_ports(text: str) -> bool:
    low, high = _numbers(text)[:2]
    return high - low >= 50_000


WANTED = (
    Wanted(
        "net.core.somaxconn",
        "4096",
        _at_least(4096),
        "connections that wait to be accepted when all clients come back at once",
    ),
    Wanted(
        "net.ipv4.tcp_keepalive_time",
        "120",
        _at_most(120),
        "seconds until the kernel probes an idle connection; many routers forget it later",
    ),
    Wanted("net.ipv4.tcp_keepalive_intvl", "15", _at_most(15), "seconds between two such probes"),
    Wanted(
        "net.ipv4.tcp_keepalive_probes",
        "4",
        _at_most(4),
        "unanswered probes until it counts as dead",
    ),
    Wanted(
        "net.ipv4.tcp_retries2",
        "8",
        _at_most(8),
        "resends to a silent peer: 8 find a dead one in under two minutes, 15 take a quarter hour",
    ),
    Wanted(
        "net.ipv4.ip_local_port_range",
        "10240 65535",
        _wide_ports,
        "outgoing connections to one address, all sessions together",
    ),
    Wanted("fs.file-max", "1048576", _at_least(1_048_576), "open files of all processes together"),
    Wanted("fs.nr_open", "1048576", _at_least(1_048_576), "open files that one limit may allow"),
    Wanted(
        "kernel.pid_max", "131072", _at_least(131_072), "processes and threads; a browser has many"
    ),
    Wanted(
        "vm.swappiness",
        "10",
        _at_most(10),
        "a session that was swapped out does not answer in time",
    ),
    Wanted(
        "vm.overcommit_memory",
        "0",
        lambda text: _numbers(text)[0] != 2,
        "browsers and forks reserve far more memory than they use",
    ),
)

LIMITS = ((AGENT_SERVICE, 65_536), (INSTANCES.template, 16_384), (BACKENDS.template, 16_384))
"""LimitNOFILE that each unit should have at least."""


@dataclass(frozen=True, slots=True)
class Tuning:
    root: Path = Path("/")

    @property
    def drop_in(self) -> Path:
        return self.root / DROP_IN

    def rows(self) -> list[Row]:
        rows = []
        for wanted in WANTED:
            now = self._now(wanted.name)
            if now is not None:  # this kernel, or this container, has no such setting
                rows.append(
                    Row(wanted.name, now, wanted.needed, _is_enough(wanted, now), wanted.why)
                )
        return [*rows, *self._unit_rows()]

    def overriding(self) -> dict[str, str]:
        """Settings that a later file sets to another value again."""
        overridden = {}
        for file in self._later_files():
            for name, value in _settings(_read(file)):
                wanted = next((setting for setting in WANTED if setting.name == name), None)
                if wanted is not None and not _is_enough(wanted, value):
                    overridden[name] = str(file)
        return overridden

    def apply(self, *, now: bool) -> list[str]:
        """Write the drop-in; with `now` set the running kernel too. Returns its values."""
        kept, ours = self._before(), dict(_settings(_read(self.drop_in)))
        lines: dict[str, str] = {}
        before: dict[str, str] = {}
        for wanted in WANTED:
            value = self._now(wanted.name)
            if value is None or (_is_enough(wanted, value) and wanted.name not in ours):
                continue
            lines[wanted.name] = wanted.needed
            # The values before the first `apply`, not the ones that it wrote.
            before[wanted.name] = kept.get(wanted.name, value)
        if not lines:
            return []
        text = HEAD + "".join(
            f"{_BEFORE}{name} = {before[name]}\n{name} = {value}\n" for name, value in lines.items()
        )
        _write(self.drop_in, text)
        if now:
            self._load(lines)
        return list(lines)

    def undo(self) -> list[str]:
        """Remove the drop-in; its settings get their values from before."""
        before, ours = self._before(), dict(_settings(_read(self.drop_in)))
        if not self.drop_in.exists():
            return []
        back = {
            name: value
            for name, value in before.items()
            if _same(self._now(name), ours.get(name, ""))
        }
        self._load(back)
        try:
            self.drop_in.unlink(missing_ok=True)
        except OSError as error:
            raise _refused(self.drop_in, error) from error
        return list(ours)

    def _file_of(self, name: str) -> Path:
        return self.root / "proc/sys" / name.replace(".", "/")

    def _now(self, name: str) -> str | None:
        try:
            return " ".join(self._file_of(name).read_text().split()) or None
        except OSError:
            return None

    def _before(self) -> dict[str, str]:
        lines = _read(self.drop_in).splitlines()
        marked = "\n".join(line.removeprefix(_BEFORE) for line in lines if line.startswith(_BEFORE))
        # Only these names: an added line must not make root write elsewhere.
        known = {wanted.name for wanted in WANTED}
        return {name: value for name, value in _settings(marked) if name in known}

    def _load(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            try:
                self._file_of(name).write_text(f"{value}\n")
            except OSError as error:
                raise _refused(self._file_of(name), error) from error

    def _later_files(self) -> Iterator[Path]:
        """By name across all folders, as systemd-sysctl reads them; /etc/sysctl.conf comes last."""
        names: dict[str, Path] = {}
        for folder in _FOLDERS:
            for file in (self.root / folder).glob("*.conf"):
                names.setdefault(file.name, file)
        for name in sorted(names):
            if name > DROP_IN.name:
                yield names[name]
        yield self.root / "etc/sysctl.conf"

    def _unit_rows(self) -> Iterator[Row]:
        for unit, least in LIMITS:
            limit = self._limit_of(unit)
            if limit is None:
                continue
            good = limit == "infinity" or (limit.isdigit() and int(limit) >= least)
            yield Row(
                f"LimitNOFILE of {unit}",
                limit,
                str(least),
                good,
                "open files of one process; `scripts/install` rewrites the unit",
                written=False,
            )

    def _limit_of(self, unit: str) -> str | None:
        """What the unit and its drop-ins say last; None when it is not installed."""
        folders = [self.root / folder / "systemd/system" for folder in _UNIT_FOLDERS]
        file = next((where / unit for where in folders if (where / unit).is_file()), None)
        if file is None:
            return None
        parts = {
            part.name: part for where in reversed(folders) for part in where.glob(f"{unit}.d/*")
        }
        limit = "1024"
        for part in (file, *(parts[name] for name in sorted(parts))):
            for name, value in _settings(_read(part)):
                if name == "LimitNOFILE":
                    limit = value.partition(":")[0] or "1024"
        return limit


def _is_enough(wanted: Wanted, text: str) -> bool:
    try:
        return wanted.enough(text)
    except (ValueError, IndexError):
        return False


def _same(first: str | None, other: str) -> bool:
    return first is not None and first.split() == other.split()


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            yield name.strip().lstrip("-").replace("/", "."), value.strip()


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text.encode(), mode=0o644)
    except OSError as error:
        raise _refused(target, error) from error


def _refused(path: Path, error: OSError) -> WaError:
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return Refused(f"cannot write {path}: run it as root", code="not_root")
    return WaError(f"cannot write {path}: {error.strerror or error}")


def all_good(rows: Iterable[Row]) -> bool:
    return all(row.good for row in rows)
