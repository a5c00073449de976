"""The machine on which a bench runs: a number without its machine means nothing."""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / ".cache" / "bench"


@dataclass(frozen=True, slots=True)
class Machine:
    processor: str
    cores: int
    memory_gib: float
    system: str
    kernel: str
    python: str
    commit: str
    load_before: float
    """The load average of the last minute as we began: what others did beside us."""

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.processor}), {self.memory_gib:.0f} GiB, {self.system}, "
            f"Linux {self.kernel}, Python {self.python}, commit {self.commit or 'unknown'}, "
            f"load before {self.load_before:.1f}"
        )


def this_machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        system=_system(),
        kernel=platform.release(),
        python=platform.python_version(),
        commit=_commit(),
        load_before=os.getloadavg()[0],
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _commit() -> str:
    """With a + where agent/ has changes that are in no commit."""
    found = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "agent")
    return found + "+" if changed else found


def git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(TOP), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
