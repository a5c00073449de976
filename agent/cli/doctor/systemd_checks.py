"""Faults that keep systemd from running the agent and its workers well, with advice."""

import grp
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from agent.cli.doctor.findings import Finding, note, ok, wrong
from agent.host.units import (
    AGENT_HTTP_SOCKET,
    AGENT_SERVICE,
    AGENT_SOCKET,
    INSTANCES,
    INSTANCES_SLICE,
)

UNITS = (*(AGENT_SERVICE, AGENT_SOCKET, INSTANCES.template, INSTANCES_SLICE), AGENT_HTTP_SOCKET)
UNIT_FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
POLKIT = "polkit.service"
RULE = "50-wa-agent.rules"
RULE_FOLDERS = ("usr/share/polkit-1/rules.d", "etc/polkit-1/rules.d")
USERS = ("wa-agent", "wa-worker")
_SECONDS = 15.0
AGAIN = "run scripts/install again"


def check_installation(root: Path = Path("/")) -> Iterator[Finding]:
    """Units and the polkit rule: what scripts/install puts there."""
    folders = [root / folder / "systemd/system" for folder in UNIT_FOLDERS]
    files = {name: _first([folder / name for folder in folders]) for name in UNITS}
    missing = [name for name, file in files.items() if file is None]
    if missing:
        yield wrong(f"not installed: {', '.join(missing)}", check="units")
    else:
        yield _verified([str(file) for file in files.values() if file is not None])
    masked = [name for name, file in files.items() if file and file.resolve() == Path("/dev/null")]
    if masked:
        yield wrong(f"masked: {', '.join(masked)}", f"systemctl unmask {masked[0]}", check="units")
    rule = _first([root / folder / RULE for folder in RULE_FOLDERS])
    if rule is None:
        sentence = "the polkit rule is missing: the agent may not start its workers"
        yield wrong(sentence, check="polkit")
    elif _first([root / "usr/lib/polkit-1/polkitd", root / "usr/libexec/polkitd"]) is None:
        yield wrong("polkitd is not installed", "apt install polkitd", check="polkit")
    elif _is_masked(folders, POLKIT):
        sentence = f"{POLKIT} is masked: the agent may not start its workers"
        yield wrong(sentence, f"systemctl unmask {POLKIT}", check="polkit")
    else:
        yield _rule_text(rule)


def _rule_text(rule: Path) -> Finding:
    """Whether it is the rule of a version that let the agent's user become root."""
    try:
        text = "".join(line for line in rule.open() if not line.lstrip().startswith("//"))
    except OSError as error:
        return note(f"cannot read {rule}: {error.strerror}", "run it as root", check="polkit")
    if "set-property" in text:
        sentence = f"{rule} grants set-property, by which the user wa-agent can become root"
        return wrong(sentence, AGAIN, check="polkit")
    return ok(f"the rule is in {rule}", check="polkit")


def _is_masked(folders: list[Path], unit: str) -> bool:
    file = _first([folder / unit for folder in folders])
    return file is not None and file.resolve() == Path("/dev/null")


def _verified(files: list[str]) -> Finding:
    """What systemd itself reports of the units."""
    if shutil.which("systemd-analyze") is None:
        return note(
            "installed; cannot be verified here", "systemd-analyze is missing", check="units"
        )
    try:
        done = subprocess.run(
            # Only these files: faults of other units are not the agent's.
            ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *files],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return note(f"cannot verify the units: {error}", "try it again", check="units")
    ours = [line for line in done.stderr.splitlines() if "wa-" in line]
    if done.returncode and ours:
        return wrong(ours[0], "run scripts/install again; remove wrong drop-ins", check="units")
    return ok("installed and verified", check="units")


def check_users() -> Finding:
    missing = []
    for name in USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            missing.append(f"user {name}")
    try:
        grp.getgrnam("wa")
    except KeyError:
        missing.append("group wa")
    if missing:
        return wrong(f"missing: {', '.join(missing)}")
    return ok(", ".join(USERS))


def check_systemd(root: Path = Path("/")) -> Iterator[Finding]:
    """Whether there is a system manager that answers."""
    if not (root / "run/systemd/system").is_dir():
        yield note(
            "systemd does not run this machine",
            'workers are plain children of the agent ([agent] host = "process")',
            check="systemd",
        )
        return
    yield ok("it runs this machine", check="systemd")
    yield _check_account(root / "sys/fs/cgroup/cgroup.controllers")
    yield _check_firewall(root / "sys/fs/cgroup/cgroup.controllers")
    path = root / "run/dbus/system_bus_socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bus:
        bus.settimeout(5)
        try:
            bus.connect(str(path))
        except OSError as error:
            sentence = f"D-Bus cannot be reached: {error.strerror or error}"
            yield wrong(sentence, "systemctl start dbus.socket dbus.service", check="dbus")
        else:
            yield ok("reachable", check="dbus")


def _check_firewall(controllers: Path) -> Finding:
    """Whether IPAddressDeny= of the units works: systemd needs cgroup v2 and BPF for it."""
    cause = "" if controllers.exists() else "the kernel's control groups are not version 2"
    if not cause and _journal_has("configures an IP firewall, but"):
        cause = "the kernel runs no BPF filters"
    if not cause:
        return ok("IPAddressDeny= of the units can be enforced", check="firewall")
    return note(
        f"IPAddressDeny= of the units does nothing: {cause}",
        "a worker can reach a cloud's metadata: deny 169.254.0.0/16 to wa-agent and wa-worker in"
        " nftables, or boot with systemd.unified_cgroup_hierarchy=1",
        check="firewall",
    )


def _journal_has(words: str) -> bool:
    """Whether systemd logged this since the boot, as far as this user may read it."""
    command = ["journalctl", "-q", "-b", "-n", "1", "-o", "cat", "_PID=1", f"--grep={words}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return words in done.stdout


def _check_account(controllers: Path) -> Finding:
    """Whether the kernel counts what a unit uses, in the form that the agent reads."""
    try:
        counts = "memory" in controllers.read_text(encoding="ascii").split()
    except OSError:
        counts = False
    if counts:
        return ok("the kernel counts what each unit uses", check="memory")
    return note(
        "the kernel does not count a unit's memory by cgroup v2: each worker reports its own",
        "boot with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable=memory;"
        " in a container, have the controller delegated",
        check="memory",
    )


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.exists() or path.is_symlink()), None)
