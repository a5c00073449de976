"""A bot for the tests, on the example's own file: it does what its arguments and a pipe say."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts" / "examples"))

from wa_program import Agent  # type: ignore[import-not-found]

HERE = Path(os.environ["WA_SESSION"])


def tell(*, connected: bool = False) -> None:
    """Lines of the file `tell` beside the session, as they come: an event, or what to do."""
    state = {"open": True}
    agent = Agent(look=lambda: state["open"], stop=(HERE / "stopped").touch)
    orders = HERE.parent / "orders"
    os.mkfifo(orders)
    if connected:
        agent.tell("open", account="4915112345678")
    while True:
        for line in orders.read_text().splitlines():
            do, _, more = line.partition(" ")
            if do == "tell":
                event = json.loads(more)
                agent.tell(event.pop("event"), **event)
            elif do == "open":
                state["open"] = more == "yes"
            elif do == "zombie":
                agent._works["look"] = lambda _call: {"open": True, "frame_age": 600.0}
            elif do == "leak":
                threading.Thread(target=leak, args=(int(more),), daemon=True).start()
            elif do == "print":
                print(more, flush=True)
            elif do == "hang":
                agent._lock.acquire()
            elif do == "exit":
                sys.exit(int(more))


def connected() -> None:
    """As `tell`, and connected without a word of the test's: after each start, too."""
    (HERE.parent / "orders").unlink(missing_ok=True)
    (HERE / "keys").write_text("of the pairing")
    (HERE.parent / "runs_as").write_text(str(os.getpid()))
    tell(connected=True)


def leak(bytes_per_second: int) -> None:
    """It uses what it takes."""
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 16)) * (bytes_per_second // 10 >> 16))
        time.sleep(0.1)


def sends(how: str) -> None:
    """It notes each message, and fails or refuses it then, in words that hold the message."""
    agent = Agent(look=lambda: True, send=lambda message: message["key"])

    def send(call: dict[str, Any]) -> dict[str, Any]:
        message = call["message"]
        with (HERE.parent / "sent").open("a") as file:
            file.write(f"{message['key']}\n")
        if how == "raises":
            raise TimeoutError
        return {"outcome": how, "error": f"no {message['text']} to {message['to']}", "id": {}}

    agent._works["send"] = send
    agent.tell("open", account="4915112345678")
    signal.pause()


def holds() -> None:
    """It is connected, and its end takes as long as it may."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Agent(look=lambda: True).tell("open", account="4915112345678")
    while True:
        signal.pause()


def quiet() -> None:
    """As a service of systemd's, and no more."""
    notify("READY=1\nSTATUS=listens at the till")
    signal.pause()


def pings() -> None:
    """Until a file says that it hangs."""
    while True:
        if not (HERE.parent / "hangs").exists():
            notify("WATCHDOG=1")
        time.sleep(0.05)


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


def orderly() -> None:
    """At SIGTERM it ends what it writes."""
    mark = HERE.parent / "began"

    def end(_number: int, _frame: object) -> None:
        mark.write_text("ended in order")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    mark.write_text("half")
    while True:
        signal.pause()


def shows() -> None:
    """Its environment and its open files, for whoever looks."""
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
