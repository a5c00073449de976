"""A bot that answers each message with its own text, and tells wa-agent of all of it: the program
of a [[program]] with messages = true. In the place of a library for WhatsApp it has lines on a TCP
port, "NUMBER TEXT" in both directions, so that it can be tried without an account:

python3 echo_program.py 4444                 # under wa-agent: command = ["python3", …, "4444"]
nc 127.0.0.1 4444                            # then type: 4915112345678 hello
"""

import socket
import sys
import threading
import time
import uuid

from wa_program import Agent

ACCOUNT = "5511900000001"
phones = []


def send(message):
    """What the agent sends: the id that it went out under."""
    out(message["to"], message["text"])
    return uuid.uuid4().hex


def out(to, text):
    for phone in list(phones):
        try:
            phone.sendall(f"{to} {text}\n".encode())
        except OSError:
            phones.remove(phone)


def hear(phone):
    with phone.makefile() as lines:
        for line in lines:
            number, _, text = line.strip().partition(" ")
            id, jid = uuid.uuid4().hex, f"{number}@s.whatsapp.net"
            record = {"kind": "message", "id": f"m:{id}", "message_id": id, "at": time.time()}
            record |= {"chat": jid, "sender": jid, "from_me": False, "type": "text", "text": text}
            agent.keep(record)  # first the disk: a kill from here on loses nothing
            agent.tell("message", direction="in", type="text", id=id)
            out(number, text)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
agent = Agent(look=lambda: listener.fileno() >= 0, stop=listener.close, send=send)
agent.tell("open", account=ACCOUNT)
print(f"listens on port {listener.getsockname()[1]}", flush=True)
while listener.fileno() >= 0:
    try:
        phone, _ = listener.accept()
    except OSError:
        break  # it was closed: the agent stops it
    phones.append(phone)
    threading.Thread(target=hear, args=(phone,), daemon=True).start()
