"""Faults of this machine that keep the agent and its workers from working well: its clock and disk,
rights of files, systemd, units and users. Checks only look, and each stands alone: one that cannot
look says so and hides no other."""

import ctypes
import grp
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.cli.doctor.check import Finding, note, ok, wrong
from agent.disk import refuses_writes
from agent.host import units

OLDEST_PYTHON = (3, 11)
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
AGAIN = "run scripts/install again"


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return wrong(f"Python {version}", "install Python 3.11 or newer")
    return ok(f"Python {version}")


def check_clock(now_wall: float | None = None, state: int | None = None) -> Finding:
    """WhatsApp refuses a client whose clock is far off, and certificates look invalid."""
    now_wall = time.time() if now_wall is None else now_wall
    if now_wall < FIRST_DAY:
        shown = time.strftime("%Y-%m-%d", time.gmtime(now_wall))
        return wrong(f"the clock says {shown}", "set it: timedatectl set-ntp true")
    state = _kernel_clock() if state is None else state
    if state == _TIME_ERROR:
        sentence = "the clock is not synchronized"
        return note(sentence, "run timedatectl set-ntp true, or install chrony")
    return ok("synchronized" if state >= 0 else "set")


def _kernel_clock() -> int:
    """adjtimex without a change: the kernel's view of its clock; -1: it gives none."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):
        return -1


def check_disk(path: Path) -> Finding:
    try:
        space = os.statvfs(path)
    except OSError as error:
        return wrong(f"cannot look at {path}: {error.strerror}", "check that it exists")
    free = space.f_bavail * space.f_frsize
    share = space.f_bavail / space.f_blocks if space.f_blocks else 1.0
    words = f"{free / (1 << 30):.1f} GiB free ({share:.0%}) at {path}"
    advice = "remove unneeded files there; wa-agent trash list shows retired sessions"
    if space.f_flag & os.ST_RDONLY or refuses_writes(path):
        return wrong(f"{path} is read-only", "look at the disk: dmesg; mount it writable")
    if space.f_files and space.f_favail == 0:
        return wrong(f"no free inode at {path}", "remove small files there")
    if free < 64 << 20:
        return wrong(words, advice)
    return note(words, advice) if share < 0.10 else ok(words)


def check_permissions(state: Path, sessions: Path, api_socket: Path) -> Iterator[Finding]:
    """Only the agent, its workers and root may read sessions."""
    if not state.is_dir():
        advice = "start the agent once, or name it: [agent] state_path"
        yield wrong(f"{state} is not there", advice, check="state")
        return
    private = [state, state / "agent.db", sessions]
    with suppress(OSError):  # closed to this user or missing: then it is not open to every user
        private += map(Path, os.scandir(sessions))
    bad = [line for path in private for line in _open_to_others(path)]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        advice = "remove the right: chmod o-rwx, and find out which program gave it"
        yield wrong(f"open to every user: {', '.join(bad[:5])}{more}", advice, check="state")
    else:
        yield ok(f"{state} is closed to others", check="state")
    yield _socket(api_socket)


def _open_to_others(path: Path) -> Iterator[str]:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISLNK(mode) and mode & 0o007:
        yield f"{path} ({stat.S_IMODE(mode):04o})"


def _socket(path: Path) -> Finding:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return note(f"cannot look at {path}", "run it as root", check="socket")
    except OSError:
        return note(f"{path} is not there", "it exists while the agent runs", check="socket")
    if not stat.S_ISSOCK(mode):
        return wrong(f"{path} is no socket", "remove it and restart the agent", check="socket")
    if mode & 0o002:
        advice = "chmod 660: clients of the socket need no key ([api] trust_socket)"
        return wrong(f"{path} is open to every user", advice, check="socket")
    return ok(f"{path} is closed to others", check="socket")


def check_installation(root: Path = Path("/")) -> Iterator[Finding]:
    """Units and the polkit rule: what scripts/install puts there."""
    folders = [root / folder / "systemd/system" for folder in UNIT_FOLDERS]
    files = {name: _first([folder / name for folder in folders]) for name in (*UNITS, POLKIT)}
    masked = {name for name, file in files.items() if file and file.resolve() == Path("/dev/null")}
    polkit_masked = bool(masked & {POLKIT})
    masked.discard(POLKIT)
    if missing := [name for name in UNITS if files[name] is None]:
        yield wrong(f"not installed: {', '.join(missing)}", check="units")
    else:
        yield _verified([str(files[name]) for name in UNITS])
    if masked:
        names = ", ".join(sorted(masked))
        yield wrong(f"masked: {names}", f"systemctl unmask {min(masked)}", check="units")
    rule = _first([root / folder / RULE for folder in RULE_FOLDERS])
    if rule is None:
        sentence = "the polkit rule is missing: the agent may not start its workers"
        yield wrong(sentence, check="polkit")
    elif _first([root / "usr/lib/polkit-1/polkitd", root / "usr/libexec/polkitd"]) is None:
        yield wrong("polkitd is not installed", "apt install polkitd", check="polkit")
    elif polkit_masked:
        sentence = f"{POLKIT} is masked: the agent may not start its workers"
        yield wrong(sentence, f"systemctl unmask {POLKIT}", check="polkit")
    else:
        yield _rule_text(rule)


def _rule_text(rule: Path) -> Finding:
    """Wrong if it is the rule of a version that let the agent's user become root."""
    try:
        text = "".join(line for line in rule.open() if not line.lstrip().startswith("//"))
    except OSError as error:
        return note(f"cannot read {rule}: {error.strerror}", "run it as root", check="polkit")
    if "set-property" in text:
        sentence = f"{rule} grants set-property, by which the user wa-agent can become root"
        return wrong(sentence, AGAIN, check="polkit")
    return ok(f"the rule is in {rule}", check="polkit")


def _verified(files: list[str]) -> Finding:
    """The report of systemd itself about the units."""
    if shutil.which("systemd-analyze") is None:
        sentence = "installed; cannot be verified here"
        return note(sentence, "systemd-analyze is missing", check="units")
    # Only these files: faults of other units are not the agent's.
    command = ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *files]
    try:
        done = run(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        return note(f"cannot verify the units: {error}", "try it again", check="units")
    ours = [line for line in done.stderr.splitlines() if "wa-" in line]
    if done.returncode and ours:
        return wrong(ours[0], "run scripts/install again; remove wrong drop-ins", check="units")
    return ok("installed and verified", check="units")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)


def check_users() -> Finding:
    missing = []
    for kind, name, look in (
        *(("user", name, pwd.getpwnam) for name in USERS),
        ("group", "wa", grp.getgrnam),
    ):
        try:
            look(name)
        except KeyError:
            missing.append(f"{kind} {name}")
    return wrong(f"missing: {', '.join(missing)}") if missing else ok(", ".join(USERS))


def check_systemd(root: Path = Path("/")) -> Iterator[Finding]:
    """Looks for a system manager that answers, and for what the units need of the kernel."""
    if not (root / "run/systemd/system").is_dir():
        advice = 'workers are plain children of the agent ([agent] host = "process")'
        yield note("systemd does not run this machine", advice)
        return
    yield ok("it runs this machine")
    controllers = root / "sys/fs/cgroup/cgroup.controllers"
    counts = False
    with suppress(OSError):
        counts = "memory" in controllers.read_text(encoding="ascii").split()
    if counts:
        yield ok("the kernel counts what each unit uses", check="memory")
    else:
        yield note(
            "the kernel does not count a unit's memory by cgroup v2: each worker reports its own",
            "boot with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable=memory;"
            " in a container, have the controller delegated",
            check="memory",
        )
    yield _firewall(controllers)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bus:
        bus.settimeout(5)
        try:
            bus.connect(str(root / "run/dbus/system_bus_socket"))
        except OSError as error:
            sentence = f"D-Bus cannot be reached: {error.strerror or error}"
            yield wrong(sentence, "systemctl start dbus.socket dbus.service", check="dbus")
        else:
            yield ok("reachable", check="dbus")


def _firewall(controllers: Path) -> Finding:
    """IPAddressDeny= of the units works if systemd has cgroup v2 and BPF."""
    cause = "" if controllers.exists() else "the kernel's control groups are not version 2"
    words = "configures an IP firewall, but"
    command = ["journalctl", "-q", "-b", "-n", "1", "-o", "cat", "_PID=1", f"--grep={words}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        if not cause and words in run(command).stdout:
            cause = "the kernel runs no BPF filters"
    if not cause:
        return ok("IPAddressDeny= of the units can be enforced", check="firewall")
    return note(
        f"IPAddressDeny= of the units does nothing: {cause}",
        "a worker can reach a cloud's metadata: deny 169.254.0.0/16 to wa-agent and wa-worker in"
        " nftables, or boot with systemd.unified_cgroup_hierarchy=1",
        check="firewall",
    )


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.exists() or path.is_symlink()), None)
