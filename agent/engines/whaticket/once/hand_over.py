"""Where an agent runs, it repairs its sessions itself: this program asks that agent."""

import contextlib
import os
import shutil
import socket
import stat
import sys
from pathlib import Path

from agent.engines.whaticket.once.options import Orders
from agent.errors import ConfigError

_SECONDS = 2.0


def agent_answers(path: Path) -> bool:
    """Whether an agent is well behind that socket."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_SECONDS)
            sock.connect(str(path))
            sock.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return sock.recv(64).split(b" ")[1:2] == [b"200"]
    return False


def hand_over(path: Path, orders: Orders) -> None:
    """Becomes `wa-agent` with the same words; does not return."""
    program = shutil.which("wa-agent")
    if program is None:
        raise ConfigError(f"the agent answers at {path}, and its program wa-agent is not in PATH")
    sys.stdout.flush()
    os.execve(program, [program, *_words(orders)], {**os.environ, "WA_AGENT_SOCKET": str(path)})


def _words(orders: Orders) -> list[str]:
    if orders.put_back:
        return ["removed", "restore", orders.what, orders.put_back]
    if orders.reset and not orders.dry_run:
        return ["cleanup", orders.what, "--yes"]
    raw = ["repair", *([orders.what] if orders.what else [])]
    raw += ["--debug"] if orders.debug else []
    raw += ["--dry-run"] if orders.dry_run else []
    return raw + (["--stats"] if orders.stats else [])
