"""The machine's clocks. The boot clock never jumps and goes on while the machine sleeps."""

import time
from pathlib import Path


def boot_now() -> float:
    """Seconds since the machine booted, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def until_next(every: float) -> float:
    """Seconds to the next multiple of `every`, a millisecond at least: loops that look at the same
    moments wake the agent once for all. A sleep of less may end before that moment."""
    return every - (boot_now() + 0.001) % every + 0.001


def boot_id() -> str:
    """Return the boot's id: what was noted under this one may be about processes of now."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
