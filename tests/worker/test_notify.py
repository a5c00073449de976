"""The notices to the service manager: never blocking, never raising, never lost unseen."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.notify import Notifier, watchdog_from


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)
        yield sock


@pytest.fixture
def notifier(tmp_path: Path) -> Iterator[Notifier]:
    one = Notifier(str(tmp_path / "notify"))
    yield one
    one.close()


def test_notices_arrive_as_the_manager_reads_them(
    manager: socket.socket, notifier: Notifier
) -> None:
    assert notifier.send("READY=1", "STATUS=up") and manager.recv(999) == b"READY=1\nSTATUS=up"
    assert notifier.send("STATUS=a\nWATCHDOG=1") and manager.recv(999) == b"STATUS=a WATCHDOG=1"


def test_f30_a_manager_that_does_not_read_never_blocks_us(
    manager: socket.socket, notifier: Notifier
) -> None:
    taken = [notifier.send("x" * 1000) for _ in range(5000)]
    assert taken[0] and not taken[-1]
    manager.recv(2000)
    assert notifier.send("room again")


def test_f30_a_socket_that_is_missing_or_gone_is_no_error(
    manager: socket.socket, notifier: Notifier, tmp_path: Path
) -> None:
    nowhere = Notifier(str(tmp_path / "nothing"))
    assert not nowhere.send("READY=1")
    deep = Notifier(str(tmp_path / "no" / ("x" * 120) / "notify"))
    assert not deep.send("READY=1")
    manager.close()
    assert not notifier.send("READY=1")
    nowhere.close()
    deep.close()


def test_without_a_manager_everything_is_well() -> None:
    notifier = Notifier()
    assert notifier.send("READY=1")
    notifier.close()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_watchdog_is_read_from_the_environment(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_from(environment, 42) == seconds
