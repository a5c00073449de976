"""Tells wa-agent how the session of a Python bot is: put this file beside the bot.

agent = Agent(look=lambda: client.is_connected(), stop=client.disconnect, send=client.send)
agent.tell("qr", qr=code)                    # a code to scan
agent.tell("open", account="4915112345678")  # connected
agent.tell("close", reason="connection_lost")
agent.tell("message", direction="in", type="text")
agent.keep(record)                           # with messages = true: on the disk when it returns
Without wa-agent (the variable is not set) it does nothing.
"""

import json
import os
import socket
import threading


class Agent:
    def __init__(self, look, stop=lambda: None, send=None, sends=("text",)):
        """`look` is asked whether the session is connected, and must really find out; `stop` ends
        it in order; `send` gets a message (to, text, key …) and returns WhatsApp's id of it.
        Each is called in a thread of its own."""
        number = os.environ.get("WA_PROGRAM_FD")
        wants = os.environ.get("WA_PROGRAM_MESSAGES", "").split()
        self._works = {"look": self._look, "stop": lambda _: stop(), "kept": self._kept}
        if send is not None:
            answer = lambda call: {"id": send(call["message"]), "outcome": "sent"}  # noqa: E731
            self._works["send"] = answer
        self._keeps = "keep" in wants
        self._is_open = look
        self._socket = socket.socket(fileno=int(number)) if number else None
        self._lock, self._one_at_a_time = threading.Lock(), threading.Lock()
        self._number, self._answer, self._error = 0, threading.Event(), ""
        if self._socket is not None:
            self._socket.set_inheritable(False)
            threading.Thread(target=self._listen, daemon=True).start()
            self.tell("ready", sends=list(sends) if send else [])

    def tell(self, event, **more):
        self._write({"event": event, **more})

    def keep(self, *records):
        """Return when these are on the agent's disk; OSError: they are not."""
        if self._socket is None or not self._keeps:
            return
        with self._one_at_a_time:
            self._number += 1
            self._answer.clear()
            self.tell("keep", n=str(self._number), records=records)
            if not self._answer.wait(20):
                raise TimeoutError("the agent did not keep a message within 20 s")
            if self._error:
                raise OSError(self._error)

    def _kept(self, call):
        if call["n"] == str(self._number):
            self._error = call.get("error", "")
            self._answer.set()

    def _look(self, _call):
        is_open = bool(self._is_open())
        return {"open": is_open, "frame_age": 0 if is_open else None}

    def _listen(self):
        for line in self._socket.makefile("rb"):
            threading.Thread(target=self._do, args=(json.loads(line),), daemon=True).start()

    def _do(self, call):
        work = self._works.get(call["do"])
        try:
            if work is None:
                answer = {"error": {"code": "not_supported"}}
            else:
                answer = {"ok": work(call) or {}}
        except Exception as error:
            answer = {"error": {"message": type(error).__name__}}
        self._write({"answer": call["id"], **answer})

    def _write(self, line):
        if self._socket is not None:
            with self._lock:
                self._socket.sendall(json.dumps(line).encode() + b"\n")
