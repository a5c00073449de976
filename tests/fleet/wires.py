"""A network for each machine of a fleet, and wires between them that a test cuts, one-way too."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lacking import not_lent

RELAY = Path(__file__).with_name("relay.py")
OUTSIDE = "outside"
"""The test itself, with the witness and the stand-in for WhatsApp."""
CALLED_WITHIN = 20.0
NOWHERE = "02:00:00:00:00:99"
"""No card has it: a frame to it is lost without a word, as on a wire that is cut."""


class Wires:
    """Made by `wires`: each host in a namespace of its own, and the test itself, on one bridge."""

    def __init__(self, hosts: Sequence[str]) -> None:
        mark = os.getpid() % 0xFFFF
        self._bridge = f"waf{mark:x}"
        self._net = f"10.{200 + mark % 50}.{mark // 50 % 250}"
        self._numbers = {name: number for number, name in enumerate(hosts, 11)}
        self._numbers[OUTSIDE] = 1
        self._spaces = {name: f"waf{mark:x}-{name}" for name in hosts}
        self._cut: set[tuple[str, str]] = set()
        self.cut_off: list[tuple[str, float, float]] = []
        """Addresses of hosts that were cut from the outside, from when to when."""

    @property
    def test(self) -> str:
        """The test's own address."""
        return self.address(OUTSIDE)

    def address(self, host: str) -> str:
        return f"{self._net}.{self._numbers[host]}"

    def inside(self, host: str) -> list[str]:
        """A command that runs another one on that host; the process keeps its pid."""
        return ["nsenter", f"--net=/run/netns/{self._spaces[host]}", "--"]

    def cut(self, sender: str, *receivers: str) -> None:
        """What `sender` sends to them is lost; what they send arrives."""
        for receiver in receivers:
            self._cut.add((sender, receiver))
            if OUTSIDE in (sender, receiver):
                host = receiver if sender == OUTSIDE else sender
                self.cut_off.append((self.address(host), time.time(), math.inf))
            told = ("replace", self.address(receiver), "lladdr", NOWHERE, "nud", "permanent")
            self._neighbour(sender, *told)

    def mend(self) -> None:
        now = time.time()
        self.cut_off = [(host, begun, min(ended, now)) for host, begun, ended in self.cut_off]
        while self._cut:
            sender, receiver = self._cut.pop()
            self._neighbour(sender, "del", self.address(receiver))

    def _neighbour(self, host: str, *words: str) -> None:
        if host == OUTSIDE:
            self._ip("neigh", *words, "dev", self._bridge)
        else:
            self._ip("-n", self._spaces[host], "neigh", *words, "dev", "eth0")

    @contextmanager
    def relay(self, host: str, port: int, outside: int) -> Iterator[None]:
        """That port of the host's loopback leads to the test's port `outside`."""
        command = [*self.inside(host), sys.executable, RELAY, str(port), self.test, str(outside)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                assert process.stdout.readline() == b"listening\n"
                yield
            finally:
                process.kill()

    def lay(self) -> None:
        self._ip("link", "add", self._bridge, "type", "bridge")
        self._ip("addr", "add", f"{self.test}/24", "dev", self._bridge)
        self._ip("link", "set", self._bridge, "up")
        for name, space in self._spaces.items():
            end = self._end(name)
            self._ip("netns", "add", space)
            peer = ("peer", "name", "eth0", "netns", space)
            self._ip("link", "add", end, "type", "veth", *peer)
            self._ip("link", "set", end, "master", self._bridge, "up")
            self._ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._ip("-n", space, "link", "set", device, "up")

    def take_away(self) -> None:
        """The wires by name: with a network alone they would go some time after it."""
        gone = [("link", "del", self._end(name)) for name in self._spaces]
        gone += [("netns", "del", space) for space in self._spaces.values()]
        for words in (*gone, ("link", "del", self._bridge)):
            subprocess.run(["ip", *words], check=False, capture_output=True)

    def _end(self, host: str) -> str:
        """The bridge's end of the wire to a host."""
        return f"{self._bridge}-{self._numbers[host]}"

    def _ip(self, *words: str) -> None:
        told = ["ip", *words]
        subprocess.run(told, check=True, capture_output=True, text=True, timeout=CALLED_WITHIN)


@contextmanager
def wires(hosts: Sequence[str]) -> Iterator[Wires]:
    made = Wires(hosts)
    try:
        try:
            made.lay()
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", "") or error
            not_lent(f"this machine lends no networks: {told}")
        yield made
    finally:
        made.take_away()
