"""Tells whether an unprivileged browser gets its own sandbox on this machine, else the cure."""

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.web.browser.arguments import in_path

_NOBODY = 65534
_SECONDS = 20.0
_SETTINGS = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "an AppArmor profile for the browser that allows userns",
    ),
)


@dataclass(frozen=True, slots=True)
class Problem:
    why: str
    cure: str


def sandbox_problem() -> Problem | None:
    return _of_settings() or _of_trying()


def _of_settings() -> Problem | None:
    for path, off, cure in _SETTINGS:
        try:
            if (Path("/proc/sys") / path).read_text().strip() == off:
                return Problem(f"{path.replace('/', '.')} is {off}", cure)
        except OSError:
            continue
    return None


def _of_trying() -> Problem | None:
    """Containers forbid namespaces by filters that no setting shows."""
    unshare = in_path("unshare")
    if unshare is None:
        return None
    try:
        done = _run(unshare)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(error)
    else:
        if done.returncode == 0:
            return None
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return Problem(
        f"new namespaces are refused ({said:.200})",
        "let the seccomp filter or security module of this machine (or container) allow"
        " unshare and clone with CLONE_NEWUSER",
    )


def _run(unshare: str) -> "subprocess.CompletedProcess[str]":
    """Run as an unprivileged user where possible: what root may do says nothing of a worker."""
    line = [unshare, "--user", "--map-root-user", "--pid", "--net", "--fork", "true"]
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": _SECONDS}
    if os.geteuid() == 0:
        with suppress(OSError):  # a root whose namespace has no other user
            nobody: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            return subprocess.run(line, check=False, **how, **nobody)
    return subprocess.run(line, check=False, **how)
