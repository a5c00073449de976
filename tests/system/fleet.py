"""A few sandbox instances on the bed, and what the agent says of them."""

import contextlib
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.system.bed import Bed

AGENT = "wa-agent.service"


@dataclass
class Fleet:
    bed: Bed
    ids: tuple[str, ...]

    def cli(self, *words: str) -> Any:
        return json.loads(self.bed.run("wa-agent", "--json", *words) or "null")

    def events(self, id: str) -> Sequence[str]:
        """The kinds of what happened to it, newest first."""
        return [event["kind"] for event in self._history(id)]

    def story(self, id: str) -> str:
        """Events of the session, oldest first, without the times."""
        told = [f"{event['kind']}: {event['sentence']}" for event in self._history(id)]
        return "\n".join(reversed(told))

    def _history(self, id: str) -> Sequence[dict[str, Any]]:
        return list(self.do("GET", f"/api/instance/{id}/events?limit=1000")["events"])

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """The agent's answer; a refusal fails the test. A command would start a Python for it."""
        try:
            status, answer = self._answer(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(f"{method} {path}: {error!r}") from error
        assert status < 300, (method, path, status, answer)
        return answer

    def ask(self, path: str, body: Any = None) -> Any:
        """The agent's answer; None while it is on its way up: a test that waits asks many times."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, answer = self._answer("GET" if body is None else "POST", path, body)
            if status < 400:
                return answer
        return None

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        more = (json.dumps(body), {"Content-Type": "application/json"}) if body is not None else ()
        with contextlib.closing(connect(self.bed)) as connection:
            connection.request(method, path, *more)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")

    def create(self, id: str, **settings: str) -> None:
        self.do("POST", "/api/instance", {"id": id, "engine": "sandbox", "settings": settings})

    def forget(self, id: str) -> None:
        """It is deleted, its files are retired."""
        self.do("DELETE", f"/api/instance/{id}")

    def list(self) -> dict[str, dict[str, Any]]:
        found = self.ask("/api/instances?limit=1000")
        return {row["id"]: row for row in found["instances"]} if found else {}

    def show(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/api/instance/{id}/details") or {}
        return found

    def until_it_answers(self) -> None:
        self.bed.until(lambda: self.ask("/api/instances") is not None)

    def statuses(self) -> dict[str, str]:
        """ "unseen" for a session that the agent has not looked at since it started: until then it
        shows the status that the agent before it wrote down."""
        rows = self.list()
        seen = {id: row for id, row in rows.items() if row["reason"] != "not_looked_yet"}
        return {id: seen.get(id, {}).get("connection_status", "unseen") for id in self.ids}

    def runs(self) -> dict[str, str]:
        """Told by systemd, not by the code under test."""
        return self._shown("InvocationID")

    def accounts(self) -> dict[str, str]:
        rows = self.list()
        return {id: rows[id]["account"] for id in self.ids}

    def states(self) -> dict[str, str]:
        return self._shown("ActiveState")

    def _shown(self, name: str) -> dict[str, str]:
        """One property of each unit, by one call."""
        told = self.bed.run("systemctl", "show", "-p", name, *map(self.unit, self.ids))
        return dict(zip(self.ids, re.findall(f"^{name}=(.*)$", told, re.M), strict=True))

    @staticmethod
    def unit(id: str) -> str:
        return f"wa-instance@{id}.service"

    def pid(self, id: str) -> int:
        return int(self.bed.show(self.unit(id), "MainPID"))

    def until_connected(self, within: float = 90.0) -> None:
        """By what the agent noticed by itself, and then by one more look: it may not have noticed
        yet that a worker was killed."""

        def all_connected() -> bool:
            return set(self.statuses().values()) == {"CONNECTED"} and self._are_connected_now()

        try:
            self.bed.until(all_connected, within=within)
        except AssertionError as error:
            raise AssertionError(f"not connected: {self.statuses()}") from error

    def _are_connected_now(self) -> bool:
        """Each worker answers a ping now, and its run is the one that systemd has."""
        runs = self.runs()
        looked = self.ask("/api/health/check", {"ids": self.ids}) or {"results": {}}
        if {one["state"] for one in looked["results"].values()} != {"CONNECTED"}:
            return False
        shown = [self.show(id) for id in self.ids]
        return all(
            one and (one["backend"] or (answers(one) and one["unit"]["run"] == runs[one["id"]]))
            for one in shown
        )

    def make(self) -> None:
        """Whatever the test before did: all of them exist, run and are connected."""
        self.bed.run("systemctl", "start", "wa-agent.socket", AGENT)
        self.until_it_answers()
        there = self.list()
        self.ask("/api/health/check", {"ids": [id for id in self.ids if id in there]})
        for id, status in self.statuses().items():
            if id not in there:
                self.create(id)
            elif status != "CONNECTED":
                self.do("POST", f"/api/instance/{id}/start")
        self.until_connected()


def answers(details: Mapping[str, Any]) -> bool:
    probe = details["probe"]
    return bool(details["linked"] and probe is not None and probe["ok"])


@dataclass
class Traffic:
    """Counts the answers to requests of several clients, each of which waits for its answers."""

    answered: int = 0
    unanswered: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Asked once more at once, and not answered even then."""

    def note(self, ask: Callable[[], int]) -> None:
        if (problem := _problem(ask)) is None:
            self.answered += 1
        else:
            self.unanswered.append(problem)
            if (problem := _problem(ask)) is not None:
                self.lost.append(problem)


def _problem(ask: Callable[[], int]) -> str | None:
    """None: it was answered."""
    try:
        status = ask()
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    return f"status {status}" if status >= 500 else None


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def connect(bed: Bed) -> UnixConnection:
    return UnixConnection(str(bed.path("/run/wa-agent/api.sock")))


CLIENTS = 4
RARELY = 0.2
"""Seconds of rest of a client while the program of before an upgrade is the one in its place."""


@contextlib.contextmanager
def traffic(bed: Bed, *, upgrade: bool = False):
    """Requests over both entrances, a new connection each, for as long as the block lasts.

    The clients pause for nothing: whenever something happens, some request is under way. While an
    `upgrade` lays out its files nothing happens to the agent, and they would only take the
    processor from it: there they rest, until the program's link leads to the new release.
    """
    seen, done = Traffic(), threading.Event()
    program = bed.root / "opt/wa-agent/venv"
    before = program.readlink() if upgrade else None

    def over_tcp() -> int:
        return _get(http.client.HTTPConnection("127.0.0.1", bed.port, timeout=20), "/healthz")

    def over_unix() -> int:
        return _get(connect(bed), "/api/instances")

    def ask_on() -> None:
        while not done.is_set():
            seen.note(over_tcp)
            seen.note(over_unix)
            if upgrade and program.readlink() == before:
                done.wait(RARELY)

    askers = [threading.Thread(target=ask_on) for _ in range(CLIENTS)]
    for asker in askers:
        asker.start()
    try:
        yield seen
    finally:
        done.set()
        for asker in askers:
            asker.join(60)


def _get(connection: http.client.HTTPConnection, path: str) -> int:
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
