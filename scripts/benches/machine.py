"""The machine on which a bench runs: a number without its machine means nothing."""

import os
import platform
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / ".cache" / "bench"


def this_machine() -> str:
    """In words, with the load of the last minute: asked before a bench, what others did beside."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count() or 1} cores ({_processor()}), {memory:.0f} GiB, {_system()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, "
        f"commit {this_commit() or 'unknown'}, load before {os.getloadavg()[0]:.1f}"
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


def this_commit() -> str:
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
