"""`demo`: the agent in the foreground, with one sandbox instance to scan and nothing to install."""

import argparse
import os
import shlex
import sys
import threading
import time
from pathlib import Path

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command
from agent.cli.sessions.qr import draw_code
from agent.errors import WaError

SETTINGS = Path(__file__).with_name("demo.toml")
INSTANCE = "demo"
_GREETS_WITHIN = 60.0


def add(commands: Subparsers) -> None:
    summary = "run the agent with one sandbox instance to scan, until Ctrl+C"
    parser = add_command(commands, "demo", demo, summary)
    parser.add_argument(
        "--state", metavar="DIR", type=Path, help="where its state stays; XDG_STATE_HOME otherwise"
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:8470",
        help="address of the HTTP interface, default %(default)s",
    )


def demo(options: argparse.Namespace) -> int:
    from agent.daemon.main import main

    state = (options.state or _state_folder()).absolute()
    _make_private(state)
    greeter = threading.Thread(target=_greet, args=(state, options.listen), daemon=True)
    greeter.start()
    overrides = {"agent.state_path": str(state), "api.listen": options.listen}
    status = main(SETTINGS, overrides)
    if not status:
        print(f"Its state stays in {state}; the next demo goes on with it.")
    return status


def _state_folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME", "")
    return Path(home or Path.home() / ".local" / "state") / "wa-agent" / "demo"


def _make_private(state: Path) -> None:
    """Sessions are in it: for its owner alone. What is there already keeps its rights."""
    before = os.umask(0o077)
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WaError(f"cannot make {state}: {error.strerror}") from error
    finally:
        os.umask(before)


def _greet(state: Path, listen: str) -> None:
    """Show the way in once the agent answers."""
    socket = state / "api.sock"
    client, deadline = Client(sockets=(socket,)), time.monotonic() + _GREETS_WITHIN
    while time.monotonic() < deadline:
        time.sleep(0.1)
        if not _is_ours(state):
            continue  # not there yet, or another agent's, which this one says and ends
        try:
            if _is_shown(client, socket):
                _say_the_rest(client, socket, listen)
                return
        except WaError:
            continue  # it is still starting


def _is_ours(state: Path) -> bool:
    try:
        return (state / "lock").read_text().strip() == str(os.getpid())
    except OSError:
        return False


def _is_shown(client: Client, socket: Path) -> bool:
    status = client.get(f"/api/instance/{INSTANCE}")["connection_status"]
    if status == "QR_REQUIRED":
        print(draw_code(client, INSTANCE), end="")
        print(f"Scan it:    {_command(socket)} sandbox scan {INSTANCE}")
    elif status == "CONNECTED":
        print(f"The instance {INSTANCE} is connected; its session was restored without a QR.")
    return status in ("QR_REQUIRED", "CONNECTED")


def _say_the_rest(client: Client, socket: Path, listen: str) -> None:
    if client.get("/api/health")["agent"]["not_listening"]:
        print(f"No HTTP yet: another program has {listen}; another port: --listen 127.0.0.1:PORT")
    else:
        print(f"Dashboard:  http://{listen}/")
    print(f"Look:       {_command(socket)} list")
    print("Stop:       Ctrl+C", flush=True)


def _command(socket: Path) -> str:
    return f"WA_AGENT_SOCKET={shlex.quote(str(socket))} {shlex.quote(sys.argv[0])}"
