"""`demo`: the agent in the foreground, with one sandbox instance to scan and nothing to install."""

import argparse
import os
import shlex
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from agent.cli.client import Client
from agent.cli.command import Subparsers, Words, add_command
from agent.cli.link import draw_code
from agent.errors import WaError

SETTINGS = Path(__file__).with_name("demo.toml")
INSTANCE = "demo"
_GREETS_WITHIN = 60.0


def add(commands: Subparsers) -> None:
    words: Words = {
        "--state DIR": ("where its state stays; XDG_STATE_HOME otherwise", {"type": Path}),
        "--listen HOST:PORT": (
            "address of the HTTP interface, default %(default)s",
            {"default": "127.0.0.1:8470"},
        ),
    }
    add_command(commands, "demo", demo, words=words)


def demo(options: argparse.Namespace) -> int:
    """Run the agent with one sandbox instance to scan, until Ctrl+C."""
    from agent.daemon.main import main

    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    state = Path(options.state or home / "wa-agent" / "demo").absolute()
    # Sessions are in it: for its owner alone. What is there already keeps its rights.
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    greeter = threading.Thread(target=_greet, args=(state, options.listen), daemon=True)
    greeter.start()
    overrides = {"agent.state_path": str(state), "api.listen": options.listen}
    status = main(SETTINGS, overrides)
    if not status:
        print(f"Its state stays in {state}; the next demo goes on with it.")
    return status


def _greet(state: Path, listen: str) -> None:
    """Show the way in once the agent answers."""
    socket = state / "api.sock"
    command = f"WA_AGENT_SOCKET={shlex.quote(str(socket))} {shlex.quote(sys.argv[0])}"
    client, deadline = Client(sockets=(socket,)), time.monotonic() + _GREETS_WITHIN
    greeting = ""
    while not greeting:
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
        with suppress(OSError, WaError):  # it is still starting
            # Another agent's lock is named by this one, which then ends.
            if (state / "lock").read_text().strip() != str(os.getpid()):
                continue
            taken = client.get("/api/health")["agent"]["not_listening"]
            status = client.get(f"/api/instance/{INSTANCE}")["connection_status"]
            if status == "QR_REQUIRED":
                code, _ = draw_code(client, INSTANCE)
                greeting = f"{code}Scan it:    {command} sandbox scan {INSTANCE}"
            elif status == "CONNECTED":
                greeting = f"The instance {INSTANCE} is connected; its session was restored."
    print(greeting)
    if taken:
        print(f"No HTTP yet: another program has {listen}; another port: --listen 127.0.0.1:PORT")
    else:
        print(f"Dashboard:  http://{listen}/")
    print(f"Look:       {command} list")
    print("Stop:       Ctrl+C", flush=True)
