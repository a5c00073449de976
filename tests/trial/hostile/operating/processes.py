"""The programs that an operator starts: the CLI and the script."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from tests.standin.whaticket.server import PASSWORD, USER
from tests.trial.hostile.operating.world import World

OUTS = ("/dev/full", "closed", "ascii", "latin", "no folder")
"""Surroundings of a command: where its answer goes, the letters that it may use, its folder."""
_WORDS = {
    "closed": ("sh", "-c", 'exec "$@" >&-', "sh"),
    "/dev/full": ("sh", "-c", 'exec "$@" >/dev/full', "sh"),
    "no folder": ("sh", "-c", 'cd "$(mktemp -d)" && rmdir "$PWD" && exec "$@"', "sh"),
}
_SPEAKS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


async def type_command(
    world: World, words: list[str], kill: float = 0.0, out: str = ""
) -> tuple[int, str]:
    """One command of the program; its exit status and what it said."""
    here = {"WA_AGENT_SOCKET": str(world.agent.state / "api.sock"), "PYTHONPATH": str(Path.cwd())}
    process = await asyncio.create_subprocess_exec(
        *(*_WORDS.get(out, ()), sys.executable, "-m", "agent", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **here, **_SPEAKS.get(out, {})},
    )
    return await _end_of(process, kill)


async def run_script(world: World, words: list[str], own: bool, kill: float) -> tuple[int, str]:
    """`own`: without an agent to hand over to."""
    place, socket = world.folder / "script", world.agent.state / "api.sock"
    (world.folder / "token").write_text(PASSWORD)
    env = {
        "PATH": os.environ["PATH"],
        "BACKEND_URL": world.desk.url,
        "BACKEND_USER": USER,
        "BACKEND_PASSWORD_FILE": str(world.folder / "token"),
        "LOG_FILE": str(world.desk.log.path),
        "SESSIONS_DIR": f"{world.desk.keys.root}/{{id}}",  # type: ignore[attr-defined]
        "STATE_DIR": str(place),
        "AUDIT_LOG": str(world.folder / "audit.log"),
        "WA_AGENT_SOCKET": str(world.folder / "no.sock" if own else socket),
        "PYTHON": sys.executable,
        "THRESHOLD": "3",
    }
    process = await asyncio.create_subprocess_exec(
        *(shutil.which("sh") or "sh", "scripts/auto-fix-sessions.sh", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
    )
    return await _end_of(process, kill)


async def _end_of(process: asyncio.subprocess.Process, kill: float) -> tuple[int, str]:
    """Return status and output. `kill`: seconds until it is killed; 0 = it ends by itself."""
    communicating = asyncio.ensure_future(process.communicate())
    done, _ = await asyncio.wait([communicating], timeout=kill or 100.0)
    if not done:
        process.kill()
    said = b"".join(part or b"" for part in await communicating).decode(errors="replace")
    assert done or kill, f"it did not end within 100 s: {said[-300:]}"
    return process.returncode or 0, said
