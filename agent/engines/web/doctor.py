"""Faults of this machine that keep the web engine from working, with cures. Changes nothing."""

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from agent.engines.base import Finding, in_path
from agent.engines.web import fetch, rules
from agent.engines.web.browser.process import find_browser, find_setpriv
from agent.errors import ConfigError, cause_of

_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts")

_NOBODY = 65534
_SETTINGS = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "an AppArmor profile for the browser that allows userns",
    ),
)


def sandbox_problem() -> Finding | None:
    """Return why an unprivileged browser gets no own sandbox on this machine, and the cure."""
    for path, off, cure in _SETTINGS:
        with suppress(OSError):
            if (Path("/proc/sys") / path).read_text().strip() == off:
                return _without_sandbox(f"{path.replace('/', '.')} is {off}", cure)
    # Containers forbid namespaces by filters that no setting shows.
    if (unshare := in_path("unshare")) is None:
        return None
    try:
        done = _run(unshare)
    except (OSError, subprocess.SubprocessError) as error:
        said = cause_of(error)
    else:
        if done.returncode == 0:
            return None
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return _without_sandbox(
        f"new namespaces are refused ({said:.200})",
        "let the seccomp filter or security module of this machine (or container) allow"
        " unshare and clone with CLONE_NEWUSER",
    )


def _without_sandbox(why: str, cure: str) -> Finding:
    return Finding("sandbox_not_possible", f"the browser gets no sandbox: {why}", cure)


def _run(unshare: str) -> "subprocess.CompletedProcess[str]":
    """Run as an unprivileged user if possible: what root may do says nothing of a worker."""
    line = [unshare, "--user", "--map-root-user", "--pid", "--net", "--fork", "true"]
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 20.0, "input": ""}
    # Not on root's terminal.
    run = partial(subprocess.run, line, check=False, start_new_session=True, **how)
    if os.geteuid() == 0:
        with suppress(OSError):  # a root whose namespace has no other user
            return run(user=_NOBODY, group=_NOBODY, extra_groups=[])
    return run()


def examine(
    cache: Path, env: Mapping[str, str] = os.environ, kinds: Iterable[str] = (rules.SHELL,)
) -> list[Finding]:
    """Return all findings; none if the engine can run, with all these kinds of browsers."""
    named = env.get("WA_BROWSER", "")
    # One that is named is the only one, whatever an instance asks for.
    wanted = [rules.SHELL] if named else sorted(kinds)
    findings = [
        *(_of(partial(find_browser, kind, named)) for kind in wanted),
        _of(lambda: fetch.read_bundle(cache)),
        _of(find_setpriv),
        sandbox_problem(),
    ]
    if not any(any(Path(folder).rglob("*.[to]tf")) for folder in _FONT_FOLDERS):
        words = "no font is installed, pictures of the page show no text"
        cure = "apt-get install fonts-liberation"
        findings.append(Finding("fonts_missing", words, cure, serious=False))
    return [finding for finding in findings if finding is not None]


def _of(need: Callable[[], object]) -> Finding | None:
    try:
        need()
    except ConfigError as error:
        sentence, _, cure = str(error).partition(";")
        if not cure:
            sentence, _, cure = str(error).rpartition(": ")
        return Finding(error.code, sentence, cure.strip())
    return None
