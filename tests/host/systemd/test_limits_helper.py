"""Root's helper for limits: which lines it takes, and what it does with every other client."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from dbus_fast import Message, Variant
from dbus_fast._private.unmarshaller import Unmarshaller
from hypothesis import given
from hypothesis import strategies as st

from agent.core import words
from agent.host.systemd import limits_helper as helper
from agent.supervise.worker_limits import BEHIND
from tests.waiting import Pauses

MIB = 1 << 20
SET = [("MemoryHigh", 64 * MIB), ("MemoryMax", 80 * MIB), ("TasksMax", 99)]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (b"s1 67108864 83886080 99\n", ("s1", SET)),
        (b"a - - -\n", ("a", [])),
        (b"0_-a - 83886080 -\n", ("0_-a", [("MemoryMax", 80 * MIB)])),
        (b"a 0 0 0\n", ("a", [(name, helper.NO_LIMIT) for name, _ in SET])),
        (b"a" * 48 + b" - - 16\n", ("a" * 48, [("TasksMax", 16)])),
    ],
)
def test_a_line_of_the_right_form_is_understood(line: bytes, asked: object) -> None:
    assert helper.parse(line) == asked


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="an empty line"),
        pytest.param(b"a - - -", id="no newline"),
        pytest.param(b"a - - -\n\n", id="two newlines"),
        pytest.param(b"a - - -\nb - - -\n", id="two lines"),
        pytest.param(b"a\n[Service]\nExecStart=+/bin/sh - - -\n", id="a section in the id"),
        pytest.param(b"a - - -\0\n", id="a zero byte"),
        pytest.param(b"a - - -\r\n", id="a carriage return"),
        pytest.param(b"a  - - -\n", id="two spaces"),
        pytest.param(b"a\t- - -\n", id="a tab"),
        pytest.param(b" a - - -\n", id="a space before"),
        pytest.param(b"A - - -\n", id="upper case"),
        pytest.param("ä - - -\n".encode(), id="another letter"),
        pytest.param(b"-a - - -\n", id="a dash first"),
        pytest.param(b"a.b - - -\n", id="a dot"),
        pytest.param(b"a@b - - -\n", id="an at sign"),
        pytest.param(b"a/b - - -\n", id="a slash"),
        pytest.param(b"../a - - -\n", id="a path"),
        pytest.param(b"a\\x2db - - -\n", id="an escape of systemd"),
        pytest.param(b"%i - - -\n", id="a specifier"),
        pytest.param(b"*  - - -\n", id="a pattern"),
        pytest.param(b"a" * 49 + b" - - -\n", id="an id too long"),
        pytest.param(b"a 83886080 83886080\n", id="a number missing"),
        pytest.param(b"a - - - -\n", id="a number too many"),
        pytest.param(
            "a - \u0668\u0663\u0668\u0668\u0666\u0660\u0668\u0660 -\n".encode(),
            id="digits of another script",
        ),
        pytest.param(b"a - \xb2\xb2 -\n", id="superscript digits"),
        pytest.param(b"a - 83_886_080 -\n", id="underscores"),
        pytest.param(b"a - +83886080 -\n", id="a plus"),
        pytest.param(b"a - -83886080 -\n", id="negative"),
        pytest.param(b"a - 083886080 -\n", id="a zero before"),
        pytest.param(b"a - 0x5000000 -\n", id="hexadecimal"),
        pytest.param(b"a - 80M -\n", id="a suffix"),
        pytest.param(b"a - 50% -\n", id="a share"),
        pytest.param(b"a - infinity -\n", id="a word"),
        pytest.param(b"a - 1 -\n", id="too little memory"),
        pytest.param(b"a 1 - -\n", id="too little memory before it is slowed down"),
        pytest.param(b"a - - 1\n", id="too few tasks"),
        pytest.param(b"a - 9999999999999999 -\n", id="too much memory"),
        pytest.param(b"a - 18446744073709551616 -\n", id="more than a number holds"),
        pytest.param(b"a - - 99999999\n", id="too many tasks"),
    ],
)
def test_every_other_line_is_refused(line: bytes) -> None:
    assert helper.parse(line) is None


def test_the_helper_accepts_every_limit_that_the_agent_accepts() -> None:
    assert (words.LEAST_MEMORY, words.LEAST_TASKS) == (helper.LEAST_MEMORY, helper.LEAST_TASKS)
    assert words.MOST_MEMORY * BEHIND <= helper.MOST_MEMORY


@given(st.binary(max_size=140))
def test_every_accepted_line_names_one_unit_and_three_numbers(line: bytes) -> None:
    asked = helper.parse(line)
    if asked is not None:
        words = line.decode("ascii").split()
        assert (asked[0], len(words), line.count(b"\n")) == (words[0], 4, 1)
        assert {name for name, _ in asked[1]} <= {"MemoryHigh", "MemoryMax", "TasksMax"}


@pytest.mark.parametrize("unit", ["wa-instance@a.service", "wa-instance@abcd.service"])
@pytest.mark.parametrize("properties", [SET, SET[:1], SET[1:]])
def test_a_dbus_library_reads_the_message_that_the_helper_sends_to_systemd(
    unit: str, properties: list[tuple[str, int]]
) -> None:
    here, there = socket.socketpair()
    with here, there:
        bus = helper.LimitsBus()
        bus._socket.close()
        bus._socket = here
        answer = Message(
            message_type=helper_type(helper.ERROR),
            reply_serial=1,
            error_name="org.example.No",
            signature="s",
            body=["no"],
            serial=7,
        )
        signal = Message(
            message_type=helper_type(4), path="/a", interface="a.b", member="C", serial=6
        )
        there.sendall(signal._marshall(False) + answer._marshall(False))
        with pytest.raises(helper.Refused, match=r"org\.example\.No"):
            bus.call(
                helper.MANAGER,
                "SetUnitProperties",
                "sba(sv)",
                helper.limits_body(unit, properties),
            )
        here.shutdown(socket.SHUT_WR)
        with there.makefile("rb") as stream:
            sent = Unmarshaller(stream).unmarshall()
    assert sent is not None
    assert (sent.member, sent.interface, sent.destination, sent.path) == (
        "SetUnitProperties",
        "org.freedesktop.systemd1.Manager",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
    )
    assert sent.body == [unit, True, [(name, Variant("t", value)) for name, value in properties]]


def helper_type(number: int):
    from dbus_fast import MessageType

    return MessageType(number)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[bytes, float]]]:
    """Serve one connection with what a client does; the answer and the seconds it took."""
    monkeypatch.setattr(helper, "apply", lambda line: "ok" if helper.parse(line) else "refused")

    def serve(
        act: Callable[[socket.socket], None], uid: int, within: float = 0.3
    ) -> tuple[bytes, float]:
        monkeypatch.setattr(helper, "LINE_WITHIN", within)
        here, there = socket.socketpair()
        with here, there:
            clients = threading.Thread(target=act, args=(there,))
            clients.start()
            begun = time.monotonic()
            helper.serve(here, uid)
            took = time.monotonic() - begun
            clients.join()
            there.settimeout(60)
            return there.recv(100), took

    yield serve


def drip(there: socket.socket) -> None:
    for _ in range(40):
        try:
            there.sendall(b"a")
        except OSError:
            return
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        pytest.param(lambda it: it.sendall(b"a - - -\n"), b"ok\n", id="whole"),
        pytest.param(lambda it: it.sendall(b"a - "), b"refused\n", id="half a line"),
        pytest.param(lambda it: it.shutdown(socket.SHUT_WR), b"refused\n", id="nothing"),
        pytest.param(lambda it: it.sendall(b"a" * 5000), b"refused\n", id="a long line"),
        pytest.param(drip, b"refused\n", id="a byte now and then"),
    ],
)
def test_a_connection_ends_in_its_time_whatever_the_client_does(
    client: Callable[..., tuple[bytes, float]],
    act: Callable[[socket.socket], None],
    answer: bytes,
    pauses: Pauses,
) -> None:
    # A whole line comes in time however slow the machine is; the others use up theirs.
    said, took = client(act, os.geteuid(), 30.0 if answer == b"ok\n" else 0.3)
    assert said == answer
    assert took < 5 + pauses.total


def test_another_user_is_refused_before_its_line_is_read(
    client: Callable[..., tuple[bytes, float]],
) -> None:
    said, _ = client(lambda it: it.sendall(b"a - - -\n"), os.geteuid() + 1)
    assert said == b"refused\n"


def test_without_systemd_it_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert helper.main() == 2
    assert "wa-limits.socket" in capsys.readouterr().err


def test_a_broken_answer_of_the_bus_does_not_end_the_helper(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(line: bytes) -> str:
        raise struct.error("short")

    monkeypatch.setattr(helper, "apply", broken)
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"a - - -\n")
        helper.serve(here, os.geteuid())
    assert "a connection failed" in capsys.readouterr().err
