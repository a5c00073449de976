"""Tells wa-agent how the session of a Python bot is: put this file beside the bot.

agent = Agent(look=lambda: client.is_connected(), stop=client.disconnect)
agent.tell("qr", qr=code)                    # a code to scan
agent.tell("open", account="4915112345678")  # connected
agent.tell("close", reason="connection_lost")
agent.tell("message", direction="in", type="text")
Without wa-agent (the variable is not set) it does nothing.
"""

import json
import os
import socket
import threading


class Agent:
    def __init__(self, look, stop=lambda: None):
        """`look` is asked whether the session is connected, and must really find out; `stop` ends
        it in order. Each is called in a thread of its own."""
        number = os.environ.get("WA_PROGRAM_FD")
        self._works = {"look": self._look, "stop": lambda _: stop()}
        self._is_open = look
        self._socket = socket.socket(fileno=int(number)) if number else None
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.set_inheritable(False)
            threading.Thread(target=self._listen, daemon=True).start()
            self.tell("ready")

    def tell(self, event, **more):
        self._write({"event": event, **more})

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
