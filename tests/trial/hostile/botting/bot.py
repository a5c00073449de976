"""A hostile bot: it does the steps of its file, answers as the last of them says, and then stays.
Standard library only, as anybody's bot."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PLACE = Path(sys.argv[1])
"""Where its steps are."""
SESSION = Path(os.environ["WA_SESSION"])
SECRET = os.environ["BOT_TOKEN"]
SOCKET = socket.socket(fileno=int(os.environ["WA_PROGRAM_FD"]))
ROOM = threading.Lock()
how = {"look": True}


def raw(line: bytes) -> None:
    with ROOM, suppress(OSError):
        SOCKET.sendall(line)


def tell(line: Any) -> None:
    raw(json.dumps(line).encode() + b"\n")


def listen() -> None:
    for line in SOCKET.makefile("rb"):
        call = json.loads(line)
        answer = {"answer": call["id"], "ok": {}}
        if call["do"] == "look":
            answer["ok"] = {"open": how["look"], "frame_age": 0}
        elif call["do"] != "stop":
            answer = {"answer": call["id"], "error": {"code": "not_supported"}}
        tell(answer)


def show(kind: str) -> None:
    match kind:
        case "binary":
            os.write(1, os.urandom(4096))
        case "long":
            os.write(1, b"x" * 1_000_000 + SECRET.encode() + b"\n")
        case "pieces":
            for sign in SECRET:
                os.write(1, sign.encode())
            os.write(1, b"\n")
        case "coloured":
            os.write(1, "".join(f"{sign}\x1b[0m" for sign in SECRET).encode() + b"\n")
        case "control":
            os.write(1, f"\x1b[2J\x1b]0;x\x07\u202e{SECRET}\x9b\n".encode())


def change(kind: str) -> None:
    """Change the files of the bot's session."""
    place = SESSION / "store"
    place.mkdir(exist_ok=True)
    match kind:
        case "link":
            (SESSION / "creds.json").symlink_to("/etc/shadow")
        case "pipe":
            os.mkfifo(place / "pipe")
        case "many":
            for number in range(500):
                (place / f"f{number}").write_text("x")
        case "sparse":
            with (place / "big").open("w") as file:
                file.truncate(10**13)
        case "name":
            Path(os.fsdecode(os.fsencode(place) + b"/\xff\n\x1b[2J")).write_text("x")
        case "socket":
            os.chdir(place)
            socket.socket(socket.AF_UNIX).bind("so")


def process(kind: str) -> None:
    mark = ("sh", "-c", f"sleep 600; : {PLACE}")
    match kind:
        case "child":
            subprocess.Popen(mark, start_new_session=True)
        case "stray":
            subprocess.Popen(mark, start_new_session=True, env={})
        case "deaf":
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        case "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "worker":
            os.kill(os.getppid(), signal.SIGKILL)
        case "ends":
            os._exit(3)


def main() -> None:
    tell({"event": "ready"})
    threading.Thread(target=listen, daemon=True).start()
    for step in json.loads((PLACE / "steps").read_text()):
        with suppress(OSError, ValueError):
            match step["do"]:
                case "tell":
                    tell(step["line"])
                case "raw":
                    raw(bytes.fromhex(step["hex"]))
                case "answer":
                    how.update(step["how"])
                case "print":
                    show(step["kind"])
                case "files":
                    change(step["kind"])
                case "process":
                    (PLACE / "played").touch()
                    process(step["kind"])
    (PLACE / "played").touch()
    while True:
        time.sleep(60)


main()
