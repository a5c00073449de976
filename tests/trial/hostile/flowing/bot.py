"""A bot whose WhatsApp is `whatsapp.py`: it tells WhatsApp that a message was taken when the agent
has it on its disk, and sends under ids that follow from their keys. Standard library only."""

import hashlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from queue import Queue
from typing import Any

PORT = int(sys.argv[1])
CREDS = Path(os.environ["WA_SESSION"]) / "creds.json"
AGENT = socket.socket(fileno=int(os.environ["WA_PROGRAM_FD"]))
ROOM = threading.Lock()
arrived: Queue[tuple[int, socket.socket]] = Queue()
answers: Queue[dict[str, Any]] = Queue()
"""Of the agent, to what it was to keep."""
now: dict[str, Any] = {"socket": None}
"""The connection to WhatsApp, while it is open."""
sent: dict[str, threading.Event] = {}


def write(to: socket.socket, **line: Any) -> None:
    with ROOM:
        to.sendall(json.dumps(line).encode() + b"\n")


def do(call: dict[str, Any]) -> None:
    told: dict[str, Any] = {"ok": {}}
    if call["do"] == "look":
        is_open = now["socket"] is not None
        told = {"ok": {"open": is_open, "frame_age": 0 if is_open else None}}
    elif call["do"] == "send":
        told = send(call["message"])
    elif call["do"] not in ("stop", "save"):
        told = {"error": {"code": "not_supported"}}
    write(AGENT, answer=call["id"], **told)
    if call["do"] == "stop":
        os._exit(0)


def send(message: dict[str, Any]) -> dict[str, Any]:
    id = "3EB0" + hashlib.sha256(message["key"].encode()).hexdigest()[:18].upper()
    if (to := now["socket"]) is None:
        return {"error": {"code": "not_connected"}}
    taken = sent.setdefault(id, threading.Event())
    try:
        write(to, sent=id, text=message["text"])
    except OSError:
        return {"ok": {"id": id, "outcome": "unknown"}}
    return {"ok": {"id": id, "outcome": "sent" if taken.wait(5) else "unknown"}}


def listen() -> None:
    for line in AGENT.makefile("rb"):
        call = json.loads(line)
        if call["do"] == "kept":
            answers.put(call)
            write(AGENT, answer=call["id"], ok={})
        else:
            threading.Thread(target=do, args=(call,), daemon=True).start()
    os._exit(0)


def keep() -> None:
    asked = 0
    while True:
        number, whence = arrived.get()
        chat = f"4917000000{number % 5}@s.whatsapp.net"
        record = {
            **{"kind": "message", "id": f"m:{number}", "message_id": f"W{number}", "type": "text"},
            **{"at": time.time(), "chat": chat, "sender": chat, "from_me": False},
            "text": f"in {number}",
        }
        asked += 1
        write(AGENT, event="keep", n=str(asked), records=[record])
        while (answer := answers.get())["n"] != str(asked):
            pass
        try:
            write(whence, **({"refused": number} if answer.get("error") else {"took": number}))
        except OSError:
            continue


def connect() -> None:
    write(AGENT, event="connecting")
    token = json.loads(CREDS.read_text())["token"] if CREDS.exists() else None
    whatsapp = socket.create_connection(("127.0.0.1", PORT))
    write(whatsapp, token=token)
    for line in whatsapp.makefile("rb"):
        told = json.loads(line)
        if "token" in told:
            new = CREDS.with_suffix(".new")
            new.write_text(json.dumps(told))
            new.replace(CREDS)
            write(AGENT, event="paired", account="491700009999")
        elif "open" in told:
            now["socket"] = whatsapp
            write(AGENT, event="open", account="491700009999")
        elif "number" in told:
            arrived.put((told["number"], whatsapp))
        elif "has" in told:
            sent[told["has"]].set()


write(AGENT, event="ready", sends=["text"], repeats=True)
threading.Thread(target=listen, daemon=True).start()
threading.Thread(target=keep, daemon=True).start()
while True:
    try:
        connect()
    except OSError as error:
        print(type(error).__name__, flush=True)
    now["socket"] = None
    write(AGENT, event="close", reason="connection_lost")
    time.sleep(0.2)
