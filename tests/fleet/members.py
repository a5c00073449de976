"""Real members of one etcd cluster on this machine."""

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lacking import lacks
from tests.ports import free_port

Places = Mapping[str, tuple[str, Sequence[str]]]
"""Name → its address, and a command that runs it there."""


class Members:
    def __init__(self, root: Path, places: Places) -> None:
        self._root, self._places = root, places
        hosts = {name: host for name, (host, _) in places.items()}
        self.clients = {name: f"http://{host}:{free_port()}" for name, host in hosts.items()}
        self._peers = {name: f"http://{host}:{free_port()}" for name, host in hosts.items()}
        self._processes = dict[str, subprocess.Popen[bytes]]()

    def start(self, name: str) -> None:
        client, peer = self.clients[name], self._peers[name]
        options = {
            **{"name": name, "data-dir": self._root / name, "log-level": "error"},
            **{"listen-client-urls": client, "advertise-client-urls": client},
            **{"listen-peer-urls": peer, "initial-advertise-peer-urls": peer},
            "initial-cluster": ",".join(f"{it}={url}" for it, url in self._peers.items()),
        }
        words = ["--unsafe-no-fsync", *(f"--{it}={value}" for it, value in options.items())]
        command = [*self._places[name][1], "etcd", *words]
        with (self._root / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._processes[name] = started

    def signal(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)
        self._processes[name].wait()

    def wait_ready(self) -> None:
        end = time.monotonic() + 30
        for url in self.clients.values():
            while not is_ready(url):
                assert time.monotonic() < end, f"no etcd at {url}"
                time.sleep(0.05)


def is_ready(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
        return b'"true"' in reply.read()
    return False


def own_addresses(names: str) -> dict[str, str]:
    """Name → an address of this machine that no other test uses now."""
    net = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}"
    return {name: f"{net}.{at}" for at, name in enumerate(names, 1)}


def needs_etcd() -> None:
    if shutil.which("etcd") is None:
        lacks("there is no etcd")


@contextmanager
def members(root: Path, count: int, places: Places | None = None) -> Iterator[Members]:
    needs_etcd()
    made = Members(root, places or {f"m{n}": ("127.0.0.1", ()) for n in range(count)})
    try:
        for name in made.clients:
            made.start(name)
        made.wait_ready()
        yield made
    finally:
        for name in made._processes:
            made.kill(name)
