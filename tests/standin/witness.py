"""Hears of every connection of the sandbox sessions of all machines: two of one may not overlap.

What the sandbox's setting `witness` names. Times are those that the workers say, of their machines'
boot clocks; here they are those of the test's wall clock.
"""

import socketserver
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

from agent.clock import wall_at_boot

LATE = 5.0
"""Seconds after which a worker that stood still has closed its connection."""


@dataclass(frozen=True, slots=True)
class Connection:
    session: str
    device: str
    pid: int
    machine: str
    begun: float
    last: float
    """When its worker sent last."""
    ended: float | None = None
    """When its worker closed it; None: it is open, or its worker was killed."""
    open: bool = True

    def __str__(self) -> str:
        ended = "open" if self.ended is None and self.open else _clock(self.ended)
        times = f"login {_clock(self.begun)}, last frame {_clock(self.last)}, end {ended}"
        return f"worker {self.pid} on {self.machine} ({times})"


class Witness:
    """Made by `witness`; `address` is the sessions' setting."""

    def __init__(self, host: str, names: Mapping[str, str], ahead: Mapping[str, float]) -> None:
        """`names`: of the machines, by their addresses; `ahead`: seconds of their boot clocks."""
        self._ahead, self._wall_at_boot = ahead, wall_at_boot()
        self._connections: dict[int, Connection] = {}
        self._turn = threading.Lock()
        self._number = 0
        heard = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                address = self.client_address[0]
                heard._hear(self.rfile, names.get(address, address))

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server((host, 0), Handler)
        self.address = f"{host}:{self.server.server_address[1]}"

    def connections(self, session: str = "") -> list[Connection]:
        """In the order of their logins."""
        with self._turn:
            every = sorted(self._connections.values(), key=lambda it: it.begun)
        return [it for it in every if session in ("", it.session)]

    def connected(self) -> dict[str, int]:
        """Sessions with an open connection → the pid of the newest one's worker."""
        return {it.session: it.pid for it in self.connections() if it.open}

    def devices(self) -> dict[str, set[str]]:
        """More than one of a session: its pairing was lost."""
        found = defaultdict[str, set[str]](set)
        for it in self.connections():
            found[it.session].add(it.device)
        return dict(found)

    def overlaps(self, frozen: Iterable[tuple[int, float, float]] = ()) -> list[str]:
        """A sentence for each pair of connections of one session of which both could send.

        `frozen`: pids of workers, from when to when each stood still. One that stood still at the
        other's login may close its connection late: it must not have sent, however.
        """
        by_session = defaultdict[str, list[Connection]](list)
        for it in self.connections():
            by_session[it.session].append(it)
        held = defaultdict[int, list[tuple[float, float]]](list)
        for pid, begun, ended in frozen:
            held[pid].append((begun, ended))
        return [
            f"{old.session}: {new} logged in {end - new.begun:.3f} s before {old} was silent"
            for every in by_session.values()
            for old, new in combinations(every, 2)
            if (end := _end(old, new.begun, held[old.pid])) > new.begun
        ]

    def _hear(self, lines: Iterable[bytes], machine: str) -> None:
        first = next(iter(lines), b"").decode().split()
        if len(first) != 5:
            return  # its worker was killed before it had said who it is
        _, session, device, pid, at = first
        with self._turn:
            self._number += 1
            number = self._number
            wall = self._wall(machine, at)
            begun = Connection(session, device, int(pid), machine, wall, wall)
            self._connections[number] = begun
        try:
            for line in lines:
                word, at = line.decode().split()
                with self._turn:
                    it = self._connections[number]
                    told = {"last" if word == "frame" else "ended": self._wall(machine, at)}
                    self._connections[number] = replace(it, **told)
        except OSError:
            pass  # its worker was killed, or its machine cut off
        finally:
            with self._turn:
                self._connections[number] = replace(self._connections[number], open=False)

    def _wall(self, machine: str, said: str) -> float:
        return self._wall_at_boot + float(said) - self._ahead.get(machine, 0.0)


def _end(it: Connection, at: float, frozen: Iterable[tuple[float, float]]) -> float:
    for begun, ended in frozen:
        if it.ended and it.begun < ended and begun < at < ended + LATE > it.ended:
            return it.last
    return max(it.last, it.ended or 0.0)


def _clock(wall: float | None) -> str:
    """Of the test's machine, as the logs of the agents have it."""
    if wall is None:
        return "not said"
    return time.strftime("%H:%M:%S", time.localtime(wall)) + f"{wall % 1:.3f}"[1:]


@contextmanager
def witness(
    host: str = "127.0.0.1",
    names: Mapping[str, str] = MappingProxyType({}),
    ahead: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[Witness]:
    made = Witness(host, names, ahead)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()
