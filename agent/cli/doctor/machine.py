"""What the doctor checks of this machine: its clock and disk, rights of files, systemd, units."""

import ctypes
import grp
import os
import pwd
import shlex
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from agent.cli.doctor.check import Finding, Installation, note, ok, wrong
from agent.files import refuses_writes
from agent.host import units

FIRST_DAY = 1_735_689_600.0
"""2025: a clock before it was never set."""
_TIME_ERROR = 5
UNITS = (
    *(units.AGENT_SERVICE, units.AGENT_SOCKET, units.INSTANCES.template, units.INSTANCES_SLICE),
    units.AGENT_HTTP_SOCKET,
)
POLKIT = "polkit.service"
RULES = [Path(folder, "polkit-1/rules.d/50-wa-agent.rules") for folder in ("/usr/share", "/etc")]
USERS = ("wa-agent", "wa-worker")
_SECONDS = 15.0


def clock(_: Installation) -> Finding:
    """WhatsApp refuses a client whose clock is far off, and certificates look invalid."""
    if (now := time.time()) < FIRST_DAY:
        return wrong(f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now))}")
    try:  # without a change: the kernel's view of its clock
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):
        return ok("set")
    if state == _TIME_ERROR:
        return note("the clock is not synchronized")
    return ok("synchronized" if state >= 0 else "set")


def disk(here: Installation) -> Finding:
    path = here.state if here.state.is_dir() else Path("/")
    try:
        space = os.statvfs(path)
    except OSError as error:
        return wrong(f"cannot look at {path}: {error.strerror}", "check that it exists")
    free = space.f_bavail * space.f_frsize
    share = space.f_bavail / space.f_blocks if space.f_blocks else 1.0
    words = f"{free / (1 << 30):.1f} GiB free ({share:.0%}) at {path}"
    if space.f_flag & os.ST_RDONLY or refuses_writes(path):
        return wrong(f"{path} is read-only", "look at the disk: dmesg; mount it writable")
    if space.f_files and space.f_favail == 0:
        return wrong(f"no free inode at {path}", "remove small files there")
    if free < 64 << 20:
        return wrong(words)
    return note(words) if share < 0.10 else ok(words)


def rights(here: Installation) -> Finding:
    """Only the agent, its workers and root may read sessions."""
    state, sessions = here.state, here.config.session_root
    if not state.is_dir():
        advice = "start the agent once, or name it: [agent] state_path"
        return wrong(f"{state} is not there", advice)
    private = [state, state / "agent.db", sessions]
    with suppress(OSError):  # closed to this user or missing: then it is not open to every user
        private += map(Path, os.scandir(sessions))
    bad = [line for path in private for line in _open_to_others(path)]
    if not bad:
        return ok(f"{state} is closed to others")
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    return wrong(f"open to every user: {', '.join(bad[:5])}{more}")


def _open_to_others(path: Path) -> Iterator[str]:
    with suppress(OSError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o007:
            yield f"{path} ({stat.S_IMODE(mode):04o})"


def api_socket(here: Installation) -> Finding:
    path = here.config.api_socket
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return note(f"cannot look at {path}", "run it as root")
    except OSError:
        return note(f"{path} is not there", "it exists while the agent runs")
    if not stat.S_ISSOCK(mode):
        return wrong(f"{path} is no socket", "remove it and restart the agent")
    return wrong(f"{path} is open to every user") if mode & 0o002 else ok(f"{path} is closed")


def unit_files(_: Installation) -> Iterator[Finding]:
    """The view of systemd itself."""
    names = [name.replace("@.", "@x.") for name in UNITS]
    rows = show_units("Id,LoadState,LoadError", names)
    for row in rows:
        if (state := row.get("LoadState", "")) != "loaded":
            unit = row["Id"].replace("@x.", "@.")
            cure = f"systemctl unmask {unit}" if state == "masked" else ""
            why = row.get("LoadError", "") if state != "not-found" else ""
            yield wrong(f"{unit}: {state} {why}".rstrip(), cure)
    if not rows:
        yield note("cannot be checked: no systemd answers", "run it where systemd runs")
    elif all(row.get("LoadState") == "loaded" for row in rows):
        yield ok("installed and loaded")


def polkit(_: Installation) -> Finding:
    rule = next(filter(Path.exists, RULES), None)
    if rule is None:
        return wrong("the polkit rule is missing: the agent may not start its workers")
    state = "".join(row.get("LoadState", "") for row in show_units("LoadState", [POLKIT]))
    if state == "masked":
        sentence = f"{POLKIT} is masked: the agent may not start its workers"
        return wrong(sentence, f"systemctl unmask {POLKIT}")
    if state == "not-found":
        return wrong("polkitd is not installed", "apt install polkitd")
    return ok(f"the rule is in {rule}")


def show_units(properties: str, units: Iterable[str]) -> list[dict[str, str]]:
    """The properties of each unit, drop-ins included; empty where no systemd answers."""
    said = ""
    with suppress(OSError, subprocess.SubprocessError):
        said = run(["systemctl", "show", "--no-pager", "-p", properties, "--", *units]).stdout
    blocks = filter(None, said.strip().split("\n\n"))
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks
    ]


def unit_words(name: str, unit: str = units.AGENT_SERVICE) -> list[str]:
    """The words of one property of a unit."""
    return [word for row in show_units(name, [unit]) for word in shlex.split(row.get(name, ""))]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)


def users(_: Installation) -> Finding:
    there = {row.pw_name for row in pwd.getpwall()}
    missing = [f"user {name}" for name in USERS if name not in there]
    missing += [] if "wa" in {row.gr_name for row in grp.getgrall()} else ["group wa"]
    return wrong(f"missing: {', '.join(missing)}") if missing else ok(", ".join(USERS))


def is_booted() -> bool:
    return Path("/run/systemd/system").is_dir()


def systemd(_: Installation) -> Finding:
    return ok("it runs this machine") if is_booted() else note("it does not run this machine")


def counted_memory(_: Installation) -> Iterator[Finding]:
    if not is_booted():
        return
    if "memory" in _controllers().split():
        yield ok("the kernel counts what each unit uses")
    else:
        yield note("the kernel does not count a unit's memory: each worker reports its own")


def _controllers() -> str:
    with suppress(OSError):
        return Path("/sys/fs/cgroup/cgroup.controllers").read_text(encoding="ascii")
    return ""


def firewall(_: Installation) -> Iterator[Finding]:
    """IPAddressDeny= of the units works if systemd has cgroup v2 and BPF."""
    if not is_booted():
        return
    cause = "" if _controllers() else "the kernel's control groups are not version 2"
    words = "configures an IP firewall, but"
    command = ["journalctl", "-q", "-b", "-n", "1", "-o", "cat", "_PID=1", f"--grep={words}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        if not cause and words in run(command).stdout:
            cause = "the kernel runs no BPF filters"
    if cause:
        yield note(f"IPAddressDeny= of the units does nothing: {cause}")
    else:
        yield ok("IPAddressDeny= of the units can be enforced")
