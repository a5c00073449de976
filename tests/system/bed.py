"""A machine of our own: an overlay of this one's files with a real systemd booted in it.

Everything it writes goes to a tmpfs and is gone afterwards. It shares the network of
the outside, so services that would fight over ports are masked.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.waiting import pause

SOURCE = Path(__file__).resolve().parents[2]
CHECKOUT = Path("/usr/src/wa-agent")
"""A copy of the source inside the bed: where the checkout lies may be hidden there."""
NOT_SOURCE = shutil.ignore_patterns(
    *(".git", ".venv", ".cache", ".state", ".*_cache", "__pycache__", "node_modules")
)

# Not ours to test, slow to boot, or bound to ports that the outside may use.
QUIET = """\
    apt-daily-upgrade.timer apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer
    e2scrub_reap.service fstrim.timer getty@.service console-getty.service ipmievd.service
    man-db.timer nvmefc-boot-connections.service nvmf-autoconnect.service openipmi.service
    mariadb.service postgresql.service postgresql@.service prometheus.service
    prometheus-alertmanager.service prometheus-node-exporter.service
    prometheus-node-exporter-apt.timer prometheus-node-exporter-ipmitool-sensor.timer
    prometheus-node-exporter-mellanox-hca-temp.timer prometheus-node-exporter-nvme.timer
    prometheus-node-exporter-smartmon.timer redis-server.service remote-fs.target
    smartmontools.service ssh.service sysstat.service systemd-networkd.service
    etcd.service systemd-resolved.service systemd-timesyncd.service uuidd.socket
"""


@dataclass
class Bed:
    """`Bed.make()` lays it out, `boot()` brings it up, `close()` leaves nothing behind."""

    place: Path
    root: Path
    nspawn: subprocess.Popen[bytes] | None = None
    init: int = 0
    port: int = 0
    """Where the agent inside listens, on the loopback that the outside shares."""
    agent_rests: bool = False
    """Stopped by the tests; the next one that wants it starts it."""
    console: Path = field(default_factory=Path)
    groups: list[Path] = field(default_factory=list)
    """The machine's control groups, as the outside sees them."""

    @classmethod
    def make(cls) -> "Bed":
        place = Path(tempfile.mkdtemp(prefix="wa-bed-", dir="/tmp"))
        bed = cls(place, place / "root", console=place / "console")
        try:
            _run("mount", "-t", "tmpfs", "-o", "size=6g,mode=0755", "tmpfs", place)
            for name in ("up", "work", "root"):
                (place / name).mkdir()
            _hide_below(place / "up")
            layers = f"lowerdir=/,upperdir={place}/up,workdir={place}/work"
            _run("mount", "-t", "overlay", "overlay", "-o", layers, bed.root)
            inside = bed.root / CHECKOUT.relative_to("/")
            shutil.rmtree(inside, ignore_errors=True)
            shutil.copytree(SOURCE, inside, symlinks=True, ignore=NOT_SOURCE)
            bed._calm()
        except BaseException:
            bed.close()
            raise
        return bed

    def _calm(self) -> None:
        units = self.root / "etc/systemd/system"
        for unit in QUIET.split():
            mask = units / unit
            mask.unlink(missing_ok=True)
            mask.symlink_to("/dev/null")
        (self.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        (self.root / "etc/hostname").write_text("bed\n")
        journald = self.root / "etc/systemd/journald.conf.d/bed.conf"
        journald.parent.mkdir(parents=True, exist_ok=True)
        # Kept over reboots, so that a failing test can show what happened before one.
        journald.write_text("[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n")

    def _hierarchies(self) -> Iterator[Path]:
        """The control groups that systemd uses, from where this process stands: mounted by us, as
        the outside may have them nowhere."""
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, name, ours = line.split(":", maxsplit=2)
            if (number, name) != ("0", "") and name != "name=systemd":
                continue
            target = self.place / f"groups-{number}"
            if not target.exists():
                target.mkdir()
                kind = ["cgroup", "-o", "none,name=systemd"] if name else ["cgroup2"]
                _run("mount", "-t", *kind, "cgroup", target)
            yield target / ours.lstrip("/")

    # Outside a boot

    def chroot(
        self, *command: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run in the tree while nothing is booted, as an installer of images would."""
        inside = ["chroot", str(self.root), *map(str, command)]
        with self._kernel_file_systems():
            return _capture(inside, {**clean_environment(), **(env or {})}, within=600)

    @contextlib.contextmanager
    def _kernel_file_systems(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, kind in (("proc", "proc"), ("dev", "bind")):
                target = self.root / name
                source = ["--bind", "/dev"] if kind == "bind" else ["-t", kind, kind]
                _run("mount", *source, target)
                stack.callback(_run, "umount", "-l", target)
            yield

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """A file of the bed, booted or not (but not below /run or /tmp of a booted one)."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target

    # Booting and ending

    def boot(self, within: float = 90.0) -> None:
        assert self.nspawn is None, "it is booted already"
        self.groups = [folder / self.place.name for folder in self._hierarchies()]
        with self.console.open("ab") as console:
            self.nspawn = subprocess.Popen(
                [
                    # Killed when we are: no killed test run leaves a machine behind.
                    *("setpriv", "--pdeathsig", "KILL"),
                    "systemd-nspawn",
                    f"--directory={self.root}",
                    "--boot",
                    "--register=no",
                    "--keep-unit",
                    "--console=pipe",
                    "--private-users=no",
                    f"--machine=wa-bed-{os.getpid()}",
                    "--resolv-conf=off",
                    "--timezone=off",
                    "--link-journal=no",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _enter(self.groups),  # noqa: PLW1509 - no thread holds a lock
            )
        self.until(self._find_init, within=within)
        self.until(self._is_up, within=within)
        assert f"/{self.place.name}/" in Path(f"/proc/{self.init}/cgroup").read_text()

    def _find_init(self) -> bool:
        assert self.nspawn is not None
        if self.nspawn.poll() is not None:
            raise AssertionError(f"nspawn ended with {self.nspawn.returncode}:\n{self.messages()}")
        pid = self.nspawn.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    self.init = int(child)
                    return True
        return False

    def _is_up(self) -> bool:
        found = self.try_run("systemctl", "is-system-running")
        return found.stdout.strip() in ("running", "degraded")

    def messages(self) -> str:
        with contextlib.suppress(OSError):  # never booted, or closed already
            return self.console.read_text(errors="replace")[-8000:]
        return ""

    def reboot(self) -> None:
        """In order: every unit is stopped in its order."""
        self.try_run("systemctl", "poweroff", "--no-block")
        self._wait_for_the_end(120)
        self.boot()

    def power_cut(self) -> None:
        """Every process of the bed is gone at once; what was written stays."""
        # The init of a pid namespace takes all its processes with it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self._wait_for_the_end(60)

    def _wait_for_the_end(self, within: float) -> None:
        assert self.nspawn is not None
        try:
            self.nspawn.wait(within)
        except subprocess.TimeoutExpired:
            os.kill(self.init, signal.SIGKILL)
            self.nspawn.kill()
            self.nspawn.wait(30)
            raise AssertionError(f"no end within {within} s:\n{self.messages()}") from None
        finally:
            self.nspawn, self.init = None, 0

    def close(self) -> None:
        if self.nspawn is not None:
            for pid in (self.init, self.nspawn.pid):
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.nspawn.wait(60)
            self.nspawn, self.init = None, 0
        for group in self.groups:
            _remove(group)
        mounted = sorted(self.place.glob("groups-*"))
        for mount in (self.root / "proc", self.root / "dev", self.root, *mounted, self.place):
            if os.path.ismount(mount):
                _run("umount", "-l", mount)
        with contextlib.suppress(OSError):
            self.place.rmdir()

    # Inside a boot

    def try_run(
        self, *command: str | Path, user: str = "", within: float = 120.0, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        assert self.init, "it is not booted"
        enter = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-p", "-C", "-w", "--"]
        if user:
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        return _capture([*enter, *map(str, command)], clean_environment(), within, text)

    def run(self, *command: str | Path, user: str = "", within: float = 120.0) -> str:
        """Return the command's output; a failure fails the test with it."""
        done = self.try_run(*command, user=user, within=within)
        if done.returncode != 0:
            shown = " ".join(map(str, command))
            raise AssertionError(f"{shown}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """One property as `systemctl` tells it: not by way of the code under test."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def journal_of(self, run: str) -> str:
        """Lines of a unit in that run, and systemd's lines about it."""
        return self.journal(
            "-o", "cat", f"_SYSTEMD_INVOCATION_ID={run}", "+", f"INVOCATION_ID={run}"
        )

    def journal(self, *selection: str) -> str:
        """With every line that was written before this call."""
        script = 'journalctl --sync; exec journalctl --no-pager -o short-monotonic "$@"'
        return self.try_run("sh", "-c", script, "journalctl", *selection).stdout

    def outside_pid(self, inside: int) -> int:
        """The pid by which the outside sees a process of the bed."""
        own = Path(f"/proc/{self.init}/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                numbers = (process / "status").read_text().partition("\nNSpid:")[2].splitlines()[0]
                if numbers.split()[-1] == str(inside) and (process / "ns/pid").readlink() == own:
                    return int(process.name)
        raise AssertionError(f"no process {inside} in the bed")

    def path(self, inside: str) -> Path:
        """A path of the booted bed (its /run too) as the outside can open it."""
        return Path(f"/proc/{self.init}/root") / inside.lstrip("/")

    @property
    def bus_address(self) -> str:
        return f"unix:path={self.path('/run/dbus/system_bus_socket')}"

    def until(self, probe: Callable[[], object], within: float = 60.0) -> None:
        begun = asked = time.monotonic()
        while not probe():
            now = time.monotonic()
            if now > begun + within:
                raise AssertionError(f"not within {within} s: {probe}\n{self.messages()}")
            time.sleep(pause(now - begun, now - asked))
            asked = time.monotonic()


def _hide_below(upper: Path) -> None:
    """Folders in which the outside is busy are empty in the bed."""
    for name, mode in (("run", 0o755), ("tmp", 0o1777), ("var/tmp", 0o1777), ("var/log", 0o755)):
        folder = upper / name
        folder.mkdir(parents=True)
        folder.chmod(mode)
        os.setxattr(folder, "trusted.overlay.opaque", b"y")
    (upper / "var").chmod(0o755)


def _enter(groups: Sequence[Path]) -> None:
    """Two machines in one control group would end and remove each other's units' groups."""
    for group in groups:
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text("0")


def _remove(group: Path) -> None:
    """With all below it; one whose processes were killed just now takes a moment to be empty."""
    deadline = time.monotonic() + 5
    while group.exists() and time.monotonic() < deadline:
        for folder in sorted((group, *group.rglob("*")), reverse=True):
            with contextlib.suppress(OSError):  # a file, or not empty yet
                folder.rmdir()


def clean_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy") or "PIP" in k}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, "PATH": path, "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0", "HOME": "/root"}


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def _capture(
    command: Sequence[str], env: Mapping[str, str], within: float, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
        input=text if text is not None else "",
    )
