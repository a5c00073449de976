"""A Node program under the module that Node loads before it, with nobody at the other end."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from agent.engines.program.declaration import preload_into
from tests.lacking import lacks


def run_node(script: Path, *, preloaded: bool = True) -> str:
    """What it prints."""
    if (node := shutil.which("node")) is None:
        lacks("node is not installed")
    environment = {"PATH": os.environ["PATH"]}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        if preloaded:
            preload_into(environment, number, str(Path(f"/proc/self/fd/{number}").readlink()))
        done = subprocess.run(
            [node, str(script)],
            env=environment,
            pass_fds=(number,),
            cwd=script.parent,
            capture_output=True,
            check=True,
            timeout=60,
            text=True,
        )
    return done.stdout
