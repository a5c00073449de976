"""The process host's notify socket: who is heard, what is told, what is only noted."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.host.notify import Notifier
from agent.host.process.notify_socket import NotifySocket
from tests.conftest import Eventually


class Heard(list[tuple[int, Mapping[str, str]]]):
    def note(self, pid: int, said: Mapping[str, str]) -> None:
        self.append((pid, said))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "notify"


async def test_pings_are_noted_and_all_other_notices_are_reported(
    place: Path, eventually: Eventually
) -> None:
    heard = Heard()
    sock = NotifySocket.open(place, heard.note, {os.getpid()})
    notifier = Notifier(str(place))
    begun = asyncio.get_running_loop().time()
    assert notifier.send("WATCHDOG=1") and notifier.ready("up")
    await eventually(lambda: len(heard), 1)
    assert heard == [(os.getpid(), {"READY": "1", "STATUS": "up"})]
    assert begun <= sock.pinged(os.getpid()) <= asyncio.get_running_loop().time()
    sock.forget(os.getpid())
    assert sock.pinged(os.getpid()) == 0.0
    notifier.close()
    sock.close()


async def test_pings_are_heard_while_the_event_loop_is_busy(place: Path) -> None:
    """The kernel's queue is short: what stays in it too long is lost."""
    sock = NotifySocket.open(place, Heard().note, {os.getpid()})
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for _ in range(2000):  # blocks whenever the queue is full; this very thread runs the loop
        sender.sendto(b"WATCHDOG=1", str(place))
    last, limit = time.monotonic(), time.monotonic() + 60
    sender.sendto(b"WATCHDOG=1", str(place))
    while sock.pinged(os.getpid()) < last and time.monotonic() < limit:
        pass
    assert sock.pinged(os.getpid()) >= last
    sender.close()
    sock.close()


async def test_a_flood_of_notices_is_reported_in_order_and_the_agent_goes_on(
    place: Path, eventually: Eventually
) -> None:
    heard = Heard()
    sock = NotifySocket.open(place, heard.note, set())

    def flood() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            for number in range(500):
                sender.sendto(f"STATUS={number}".encode(), str(place))
            sender.sendto(b"no assignment", str(place))
            sender.sendto(b"X" * 5000 + b"=1", str(place))

    await asyncio.to_thread(flood)
    await eventually(lambda: sock.refused, 2)
    await eventually(lambda: len(heard), 500)
    assert [said["STATUS"] for _, said in heard] == [str(number) for number in range(500)]
    sock.close()


async def test_closing_ends_the_thread_also_in_a_flood(place: Path) -> None:
    heard = Heard()
    sock = NotifySocket.open(place, heard.note, set())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for _ in range(1000):
            try:
                sender.sendto(b"STATUS=x", str(place))
            except BlockingIOError:
                break
    sock.close()
    sock.close()
    assert not place.exists()
    assert not [one for one in threading.enumerate() if one.name == "notices"]
    await asyncio.sleep(0)
    assert not heard, "told after it was closed"


async def test_a_socket_that_a_cleaner_deleted_is_made_again_and_heard(
    place: Path, eventually: Eventually
) -> None:
    heard = Heard()
    sock = NotifySocket.open(place, heard.note, {os.getpid()})
    for turn in ("first", "second"):
        place.unlink()
        assert sock.is_reached() and place.is_socket()
        notifier = Notifier(str(place))
        assert notifier.status(turn)
        await eventually(lambda: heard[-1:], [(os.getpid(), {"STATUS": turn})])
        notifier.close()
    assert sock.refused == 0
    sock.close()
    assert not place.exists()


async def test_no_socket_is_made_in_a_folder_that_took_the_place_of_its_own(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    sock = NotifySocket.open(run / "notify", Heard().note, set())
    run.rename(tmp_path / "moved")
    run.mkdir()
    assert not sock.is_reached() and not list(run.iterdir())
    run.rmdir()
    (tmp_path / "moved").rename(run)
    assert sock.is_reached()
    sock.close()
