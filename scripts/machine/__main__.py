"""Lays out a Debian with the program on it, boots it three times, prints what came of it."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.machine.forgetful import ForgetfulDisk

SOURCE = Path(__file__).resolve().parents[2]
PACKAGES = "systemd,systemd-sysv,dbus,libpam-systemd,python3,python3-venv,kmod,udev,ca-certificates"
SETTINGS = """\
[start]
stagger = 0.0
"""
MEMORY = "[Service]\nMemoryMax=100M\n"
UNIT = """\
[Unit]
After=multi-user.target wa-agent.service
[Service]
ExecStart=/usr/bin/python3 -u /root/inside.py
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
"""
BOOT_WITHIN = 900.0
ACKNOWLEDGED = 60
"""Changes after which the power goes."""

IN_THE_CACHE = 4
"""... and the writes that the disk holds then, and may forget."""

Said = dict[str, Any]
Enough = Callable[[Sequence[Said]], bool]


def run(*command: str | Path, **more: Any) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **more
    )
    if done.returncode:
        raise SystemExit(f"scripts/chaos: {command[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def lay_out(tree: Path) -> None:
    """The Debian of the machine, and the program in it as scripts/install puts it there."""
    if not (tree / "usr/bin/python3").exists():
        print("a Debian for the machine ...", file=sys.stderr)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", tree)
        forbid = tree / "usr/sbin/policy-rc.d"
        forbid.write_text("#!/bin/sh\nexit 101\n")
        forbid.chmod(0o755)
        shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
        apt = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "polkitd")
        run("chroot", tree, *apt, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    print("the program in it ...", file=sys.stderr)
    pip = Path(sys.executable).with_name("pip")
    lock = ("-r", "scripts/locks/run.txt")
    wheels = tree / "tmp/wheels"
    run(pip, "download", "-q", "--require-hashes", *lock, "-d", wheels, cwd=SOURCE)
    there = tree / "usr/src/wa-agent"
    shutil.rmtree(there, ignore_errors=True)
    left_out = shutil.ignore_patterns(
        ".git", ".venv", ".cache", ".state", ".*_cache", "__pycache__"
    )
    shutil.copytree(SOURCE, there, symlinks=True, ignore=left_out)
    where = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/tmp/wheels"}
    run("mount", "-t", "proc", "proc", tree / "proc")
    try:
        run("chroot", tree, "/usr/src/wa-agent/scripts/install", env={**where, **offline})
    finally:
        run("umount", tree / "proc")
    (tree / "etc/wa-agent/agent.toml").write_text(SETTINGS)
    (tree / "etc/fstab").write_text("/dev/vdb /var/lib/wa-agent ext4 errors=remount-ro 0 0\n")
    (tree / "etc/hostname").write_text("machine\n")
    journal = tree / "etc/systemd/journald.conf.d/keep.conf"
    journal.parent.mkdir(exist_ok=True)
    journal.write_text("[Journal]\nStorage=persistent\n")
    shutil.copy(Path(__file__).with_name("inside.py"), tree / "root/inside.py")
    units = tree / "etc/systemd/system"
    (units / "inside.service").write_text(UNIT)
    template = units / "wa-instance@.service.d/memory.conf"
    template.parent.mkdir(exist_ok=True)
    template.write_text(MEMORY)
    wanted = units / "multi-user.target.wants/inside.service"
    wanted.unlink(missing_ok=True)
    wanted.symlink_to("/etc/systemd/system/inside.service")


class Machine:
    """One emulated machine; each boot has a file of what it said."""

    def __init__(self, place: Path, tree: Path) -> None:
        self.place = place
        self.root = place / "root.img"
        state = place / "state.img"
        run("mke2fs", "-q", "-t", "ext4", "-d", tree, self.root, "2G")
        run("mke2fs", "-q", "-t", "ext4", "-d", tree / "var/lib/wa-agent", state, "512M")
        self.disk = ForgetfulDisk(state, place / "disk.sock")
        self._boots = 0
        self.process: subprocess.Popen[bytes] | None = None

    def boot(self, *words: str) -> Path:
        """Begin a boot; the file into which the script inside writes."""
        self._boots += 1
        said = self.place / f"said{self._boots}"
        kernel = max(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
        initrd = Path(str(kernel).replace("vmlinuz", "initrd.img"))
        line = f"console=ttyS0 root=/dev/vda rw panic=-1 {' '.join(words)}"
        command = [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
            *("-m", "1536", "-display", "none", "-net", "none", "-no-reboot"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", line),
            *("-drive", f"file={self.root},if=virtio,format=raw"),
            *("-drive", f"file=nbd+unix:///?socket={self.place}/disk.sock,if=virtio,format=raw"),
            *("-serial", f"file:{self.place}/console{self._boots}", "-serial", f"file:{said}"),
        ]
        self.process = subprocess.Popen(command)
        return said

    def cut(self) -> tuple[int, int]:
        """In the middle of writing, where that comes within a minute."""
        assert self.process is not None
        deadline = time.monotonic() + 60
        while self.disk.cached < IN_THE_CACHE and time.monotonic() < deadline:
            time.sleep(0.001)
        self.process.kill()
        self.process.wait()
        return self.disk.cut()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.disk.close()

    def hear(self, said: Path, enough: Enough) -> list[Said]:
        """Return the machine's lines once they are enough, or once it ends."""
        assert self.process is not None
        deadline = time.monotonic() + BOOT_WITHIN
        while True:
            found = _lines(said)
            if enough(found) or self.process.poll() is not None:
                return found
            if time.monotonic() > deadline:
                raise SystemExit(f"scripts/chaos: the machine said no more after {found[-2:]}")
            time.sleep(0.2)


def _lines(said: Path) -> list[Said]:
    try:
        lines = said.read_text(errors="replace").splitlines(keepends=True)
    except OSError:
        return []
    found = []
    for line in lines:
        if line.endswith("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                if line.strip():
                    print(f"  {line.rstrip()}", file=sys.stderr)
    return found


def is_done(said: Sequence[Said]) -> bool:
    return any("done" in one for one in said)


def measure(machine: Machine) -> list[Said]:
    print("first boot: memory, clock ...", file=sys.stderr)
    first = machine.hear(machine.boot("chaos.phase=figures"), is_done)
    assert machine.process is not None
    machine.process.wait(BOOT_WITHIN)
    print("second boot: changes until the power goes ...", file=sys.stderr)
    said = machine.boot("chaos.phase=write")
    second = machine.hear(said, lambda found: sum("ack" in one for one in found) >= ACKNOWLEDGED)
    cached, lost = machine.cut()
    second = _lines(said)
    last = max((one["ack"] for one in second if "ack" in one), default=0)
    made = ",".join(one["made"] for one in second if "made" in one)
    print("third boot: what is left ...", file=sys.stderr)
    words = ("chaos.phase=check", f"chaos.last={last}", f"chaos.made={made}")
    third = machine.hear(machine.boot(*words), is_done)
    rows = [one for one in (*first, *second, *third) if "row" in one]
    for one in rows:
        if one["row"].startswith("power cut"):
            one["figure"] += f"; {lost} of {cached} cached writes lost"
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos vm")
    parser.add_argument(
        "--tree", type=Path, help="folder that keeps the machine's Debian for the next run"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="wa-chaos-") as folder:
        place = Path(folder)
        tree = options.tree or place / "tree"
        tree.mkdir(parents=True, exist_ok=True)
        lay_out(tree)
        machine = Machine(place, tree)
        try:
            rows = measure(machine)
        finally:
            machine.close()
    for one in rows:
        shown = "yes" if one["held"] else "NO"
        if options.markdown:
            print(f"| {one['row']} | {shown} | {one['figure']} |")
        else:
            print(f"{one['row']:48} {shown:4} {one['figure']}")
    return 0 if len(rows) == 9 and all(one["held"] for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
