"""The notices to the service manager: never blocking, never raising, never lost unseen."""

import socket
from pathlib import Path

import pytest

from agent.host.notify import Notifier, watchdog_from


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.settimeout(30)
    return sock


def test_notices_arrive_as_the_manager_reads_them(manager: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    assert notifier.send("READY=1", "STATUS=up") and manager.recv(999) == b"READY=1\nSTATUS=up"
    assert notifier.send("STATUS=a\nWATCHDOG=1") and manager.recv(999) == b"STATUS=a WATCHDOG=1"
    notifier.close()
    manager.close()


def test_f30_a_manager_that_does_not_read_never_blocks_us(
    manager: socket.socket, tmp_path: Path
) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    taken = [notifier.send("x" * 1000) for _ in range(5000)]
    assert taken[0] and not taken[-1]
    manager.recv(2000)
    assert notifier.send("room again")
    notifier.close()
    manager.close()


def test_f30_a_socket_that_is_missing_or_gone_is_no_error(
    manager: socket.socket, tmp_path: Path
) -> None:
    nowhere = Notifier(str(tmp_path / "nothing"))
    assert not nowhere.send("READY=1")
    deep = Notifier(str(tmp_path / "no" / ("x" * 120) / "notify"))
    assert not deep.send("READY=1")
    notifier = Notifier(str(tmp_path / "notify"))
    manager.close()
    assert not notifier.send("READY=1")
    for each in (nowhere, deep, notifier):
        each.close()


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
