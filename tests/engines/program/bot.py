"""A bot for the tests, on the example's own file: it does what its arguments and a pipe say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts" / "examples"))

from wa_program import Agent  # type: ignore[import-not-found]

HERE = Path(os.environ["WA_SESSION"])


def tell() -> None:
    """Lines of the file `tell` beside the session, as they come: an event, or what to do."""
    agent = Agent(look=lambda: True, stop=(HERE / "stopped").touch)
    orders = HERE.parent / "orders"
    os.mkfifo(orders)
    while True:
        for line in orders.read_text().splitlines():
            do, _, more = line.partition(" ")
            if do == "tell":
                event = json.loads(more)
                agent.tell(event.pop("event"), **event)
            elif do == "hang":
                agent._lock.acquire()


def quiet() -> None:
    """As a service of systemd's, and no more."""
    notify("READY=1\nSTATUS=listens at the till")
    signal.pause()


def fails() -> None:
    print("Error: Cannot find module 'left-pad' with password=hunter2hunter2", flush=True)
    sys.exit(3)


def stays() -> None:
    """It hears SIGTERM and goes on; a child in a session of its own, too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (HERE.parent / "pids").write_text(f"{os.getpid()} {child.pid}")
    notify("READY=1")
    signal.pause()


def strays() -> None:
    """A child leaves its session and has no environment; another runs on from child to child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
    if os.fork() == 0:
        while True:
            if os.fork():
                os._exit(0)
            os.setsid()
            (HERE.parent / "runs").touch()
            time.sleep(0.02)
    (HERE.parent / "pids").write_text(f"{os.getpid()} {child.pid}")
    notify("READY=1")
    signal.pause()


def shows() -> None:
    """Write the bot's environment and open files into `shown`, for the test."""
    files = [file.name for file in Path("/proc/self/fd").iterdir()]
    shown = {"environment": dict(os.environ), "files": files, "folder": str(Path.cwd())}
    (HERE.parent / "shown").write_text(json.dumps(shown))
    signal.pause()


def notify(text: str) -> None:
    import socket

    name = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), name)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
