"""What the doctor checks of this machine: its clock and disk, rights of files, systemd, units."""

import ctypes
import grp
import os
import pwd
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.cli.doctor.check import Finding, note, ok, wrong
from agent.disk import refuses_writes
from agent.host import units

FIRST_DAY = 1_735_689_600.0
"""2025: a clock before it was never set."""
_TIME_ERROR = 5
UNITS = (
    *(units.AGENT_SERVICE, units.AGENT_SOCKET, units.INSTANCES.template, units.INSTANCES_SLICE),
    units.AGENT_HTTP_SOCKET,
)
UNIT_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
POLKIT = "polkit.service"
RULE = "50-wa-agent.rules"
RULE_FOLDERS = ("usr/share/polkit-1/rules.d", "etc/polkit-1/rules.d")
USERS = ("wa-agent", "wa-worker")
_SECONDS = 15.0
ROOT = Path("/")


def clock() -> Finding:
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


def disk(path: Path) -> Finding:
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


def rights(state: Path, sessions: Path) -> Finding:
    """Only the agent, its workers and root may read sessions."""
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


def api_socket(path: Path) -> Finding:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return note(f"cannot look at {path}", "run it as root")
    except OSError:
        return note(f"{path} is not there", "it exists while the agent runs")
    if not stat.S_ISSOCK(mode):
        return wrong(f"{path} is no socket", "remove it and restart the agent")
    return wrong(f"{path} is open to every user") if mode & 0o002 else ok(f"{path} is closed")


def unit_files(root: Path = ROOT) -> Iterator[Finding]:
    files = {name: _unit(name, root) for name in UNITS}
    if missing := [name for name, file in files.items() if file is None]:
        yield wrong(f"not installed: {', '.join(missing)}")
    else:
        yield _verified([str(file) for file in files.values()])
    if masked := sorted(name for name, file in files.items() if _is_masked(file)):
        yield wrong(f"masked: {', '.join(masked)}", f"systemctl unmask {masked[0]}")


def polkit(root: Path = ROOT) -> Finding:
    rule = _first([root / folder / RULE for folder in RULE_FOLDERS])
    if rule is None:
        return wrong("the polkit rule is missing: the agent may not start its workers")
    if _first([root / "usr/lib/polkit-1/polkitd", root / "usr/libexec/polkitd"]) is None:
        return wrong("polkitd is not installed", "apt install polkitd")
    if _is_masked(_unit(POLKIT, root)):
        sentence = f"{POLKIT} is masked: the agent may not start its workers"
        return wrong(sentence, f"systemctl unmask {POLKIT}")
    return ok(f"the rule is in {rule}")


def _unit(name: str, root: Path) -> Path | None:
    return _first([root / folder / "systemd/system" / name for folder in UNIT_FOLDERS])


def _is_masked(file: Path | None) -> bool:
    return file is not None and file.resolve() == Path("/dev/null")


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.exists() or path.is_symlink()), None)


def _verified(files: list[str]) -> Finding:
    """The report of systemd itself about the units."""
    if shutil.which("systemd-analyze") is None:
        return note("installed; cannot be verified here", "systemd-analyze is missing")
    # Only these files: faults of other units are not the agent's.
    command = ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *files]
    try:
        done = run(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        return note(f"cannot verify the units: {error}", "try it again")
    ours = [line for line in done.stderr.splitlines() if "wa-" in line]
    if done.returncode and ours:
        return wrong(ours[0], "run scripts/install again; remove wrong drop-ins")
    return ok("installed and verified")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)


def users() -> Finding:
    there = {row.pw_name for row in pwd.getpwall()}
    missing = [f"user {name}" for name in USERS if name not in there]
    missing += [] if "wa" in {row.gr_name for row in grp.getgrall()} else ["group wa"]
    return wrong(f"missing: {', '.join(missing)}") if missing else ok(", ".join(USERS))


def is_booted(root: Path = ROOT) -> bool:
    return (root / "run/systemd/system").is_dir()


def systemd(root: Path = ROOT) -> Finding:
    return ok("it runs this machine") if is_booted(root) else note("it does not run this machine")


def counted_memory(root: Path = ROOT) -> Iterator[Finding]:
    if not is_booted(root):
        return
    controllers = ""
    with suppress(OSError):
        controllers = (root / "sys/fs/cgroup/cgroup.controllers").read_text(encoding="ascii")
    if "memory" in controllers.split():
        yield ok("the kernel counts what each unit uses")
    else:
        yield note("the kernel does not count a unit's memory: each worker reports its own")


def firewall(root: Path = ROOT) -> Iterator[Finding]:
    """IPAddressDeny= of the units works if systemd has cgroup v2 and BPF."""
    if not is_booted(root):
        return
    found = (root / "sys/fs/cgroup/cgroup.controllers").exists()
    cause = "" if found else "the kernel's control groups are not version 2"
    words = "configures an IP firewall, but"
    command = ["journalctl", "-q", "-b", "-n", "1", "-o", "cat", "_PID=1", f"--grep={words}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        if not cause and words in run(command).stdout:
            cause = "the kernel runs no BPF filters"
    if cause:
        yield note(f"IPAddressDeny= of the units does nothing: {cause}")
    else:
        yield ok("IPAddressDeny= of the units can be enforced")


def dbus(root: Path = ROOT) -> Iterator[Finding]:
    if not is_booted(root):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bus:
        bus.settimeout(5)
        try:
            bus.connect(str(root / "run/dbus/system_bus_socket"))
        except OSError as error:
            yield wrong(f"D-Bus cannot be reached: {error.strerror or error}")
        else:
            yield ok("reachable")
