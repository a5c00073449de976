"""A worker with one bad habit, named by its instance's id (what stands before the first "-").

Runs under both hosts: python standin.py [--backend] ID. Standard library only.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

links = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def say(*assignments: str) -> None:
    path = Path(os.environ["NOTIFY_SOCKET"])
    try:  # no agent may listen just now, and the folder may have another name
        folder = os.open(path.parent, os.O_PATH)
    except OSError:
        return
    try:
        notices.sendto("\n".join(assignments).encode(), f"/proc/self/fd/{folder}/{path.name}")
    except OSError:
        pass
    finally:
        os.close(folder)


def listen() -> None:
    runtime = os.environ["RUNTIME_DIRECTORY"]  # its path may be longer than an address can be
    Path(runtime, "link.sock").unlink(missing_ok=True)
    folder = os.open(runtime, os.O_PATH)
    links.bind(f"/proc/self/fd/{folder}/link.sock")
    os.close(folder)
    links.listen()


def ping_for(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        say("WATCHDOG=1")
        time.sleep(0.05)


def have_children(tag: str) -> None:
    """One in our group, one in a session of its own, both deaf."""
    deaf = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    for new_session in (False, True):
        subprocess.Popen([sys.executable, "-c", deaf, tag], start_new_session=new_session)


def main(id: str) -> None:
    habit = id.split("-", maxsplit=1)[0]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if habit.startswith("exit"):
        sys.exit(int(habit.removeprefix("exit")))
    if habit == "mute":
        time.sleep(600)
    if habit == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if habit == "family":
        have_children(id)
    if habit == "late":  # by the seconds in its id
        say("EXTEND_TIMEOUT_USEC=30000000")
        time.sleep(float(id.partition("-")[2] or 2.5))
    if habit == "locker":
        path = Path(os.environ["WA_SESSION_ROOT"], id, "lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(75)  # as a worker
    listen()
    print("ready", id, flush=True)
    say("READY=1", f"STATUS=I am {habit}")
    if habit == "hang":
        time.sleep(600)
    if habit == "leak":
        hoard = bytearray(64 << 20)
        hoard[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(hoard[:: os.sysconf("SC_PAGE_SIZE")])
    ping_for(600)


main(sys.argv[-1])
