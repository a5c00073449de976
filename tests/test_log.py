"""Log lines: their shape, what they must never show, and that they never stand in the way."""

import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import log
from agent.core.model import Category
from agent.log import LineWriter, as_fields, as_json, as_text, clean, describe, journal_listens

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[(\w+)\] \[(\w+)\] \[([^]]+)\] (.*)")


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def journal(tmp_path):
    """A datagram socket where the journal's would be."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = tmp_path / "journal"
    listening.bind(str(path))
    listening.setblocking(False)
    yield listening, str(path)
    listening.close()


def record(message: str, *args: object, level: int = logging.INFO, **extra: object):
    made = logging.LogRecord("agent.x", level, "/x.py", 7, message, args, None, "work")
    made.__dict__.update(extra)
    return made


def read_fields(raw: bytes) -> dict[str, str]:
    found = {}
    while raw:
        head, _, rest = raw.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if equals:
            raw = rest
        else:
            (length,) = struct.unpack("<Q", rest[:8])
            value, raw = rest[8 : 8 + length], rest[9 + length :]
        found[name.decode()] = value.decode()
    return found


@pytest.mark.parametrize(
    ("level", "word"), [(logging.WARNING, "WARN"), (logging.CRITICAL, "ERROR")]
)
def test_a_line_has_time_level_category_instance_and_text(level, word):
    made = record("took %s s", 3, level=level, wa_category=Category.HEALTH, wa_instance="sales")
    matched = LINE.fullmatch(as_text(made, *describe(made)))
    assert matched
    assert matched.groups() == (word, "HEALTH", "sales", "took 3 s")


def test_json_lines_hold_the_same():
    made = record("took %s", 3, wa_category="API", wa_instance="a")
    found = json.loads(as_json(made, *describe(made)))
    assert found["text"] == "took 3"
    assert (found["level"], found["category"], found["instance"]) == ("INFO", "API", "a")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])


def test_a_traceback_follows_indented_and_cleaned():
    try:
        raise ValueError("wak_abcdefgh_secret\n[2026-01-01 00:00:00] [ERROR] forged \x1b[2J")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (type(error), error, error.__traceback__)
    lines = as_text(made, *describe(made)).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("  | ") for line in lines[1:])
    assert "\x1b" not in "".join(lines)
    assert "secret" not in "".join(lines)


@given(st.text())
@example("a\nb\0c\r\x1b[31mb\x07")
@example("a\x9bb\u2028c\u202ed\x85")
def test_f72_cleaned_text_is_one_printable_line_and_plain_text_stays(text):
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert clean(cleaned) == cleaned


def test_the_journal_gets_fields(journal):
    listening, path = journal
    writer = LineWriter(2, "text", to_journal=True, journal_path=path)
    writer.handle(record("x", level=logging.ERROR, wa_category="CRYPTO", wa_instance="sales"))
    fields = read_fields(listening.recv(65536))
    wanted = {"MESSAGE": "x", "PRIORITY": "3", "WA_CATEGORY": "CRYPTO", "WA_INSTANCE": "sales"}
    wanted |= {"SYSLOG_IDENTIFIER": "wa-agent", "CODE_LINE": "7"}
    assert wanted.items() <= fields.items()
    writer.close()


def test_f72_a_field_cannot_be_smuggled_into_the_journal():
    made = record("x\nPRIORITY=0", wa_instance="a\nWA_CATEGORY=API", wa_category="SESSION")
    fields = read_fields(as_fields(made, *describe(made)))
    assert fields["PRIORITY"] == "6"
    assert fields["WA_CATEGORY"] == "SESSION"


def test_without_a_journal_the_line_goes_to_stderr(pipe, tmp_path):
    reading, writing = pipe
    writer = LineWriter(writing, "text", to_journal=True, journal_path=str(tmp_path / "gone"))
    writer.handle(record("still here"))
    assert b"still here" in os.read(reading, 4096)
    writer.close()


def test_the_journal_is_used_where_stderr_is_its_stream(pipe):
    _, writing = pipe
    stat = os.fstat(writing)
    assert journal_listens({"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}, writing)
    assert not journal_listens({"JOURNAL_STREAM": f"{stat.st_dev}:1"}, writing)
    assert not journal_listens({"JOURNAL_STREAM": "nonsense"}, writing)
    assert not journal_listens({}, writing)


def test_f28_the_journal_is_used_where_a_unit_got_no_stream():
    with Path(os.devnull).open("w") as null:
        assert journal_listens({"INVOCATION_ID": "x"}, null.fileno())
        assert not journal_listens({}, null.fileno())


def test_a_full_pipe_drops_lines_and_says_so_later(pipe):
    """No process reads stderr: logging must neither wait nor fail."""
    reading, writing = pipe
    writer = LineWriter(writing, "text", to_journal=False)
    for _ in range(3000):
        writer.handle(record("x" * 100))
    assert writer.dropped > 1000
    with suppress(BlockingIOError):
        while os.read(reading, 65536):
            pass
    dropped = writer.dropped
    writer.handle(record("again"))
    assert f"{dropped} earlier lines are lost".encode() in os.read(reading, 65536)
    assert writer.dropped == 0


def test_what_fails_each_second_is_logged_once_for_each_cause(caplog):
    told = {}
    for why in ("away", "away", "full", "", "full"):
        with log.going_on("cannot", told):
            if why:
                raise OSError(13, why)
    assert caplog.messages == ["cannot: away", "cannot: full", "cannot: full"]


MUTE = """
import logging, os, resource
from agent.log import set_up_logging
set_up_logging("info", env={})
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
except OSError:
    logging.getLogger("asyncio").exception("no more accepted\\nfor now")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_f17_without_descriptors_a_line_is_still_written(form):
    code = MUTE.replace('"info",', f'"info", "{form}",')
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert "no more accepted" in done.stderr
    assert "Too many open files" in done.stderr


def test_f27_a_closed_stderr_is_no_error():
    reading, writing = os.pipe()
    writer = LineWriter(writing, "text", to_journal=False)
    os.close(reading)
    writer.handle(record("nobody"))
    os.close(writing)
    writer.handle(record("nothing"))
    assert writer.dropped == 2


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_wrong_arguments_are_logged_not_raised(pipe):
    reading, writing = pipe
    writer = LineWriter(writing, "text", to_journal=False)
    writer.handle(record("%d of %d", "x"))
    writer.handle(record("%s", Unprintable()))
    writer.handle(record("after"))
    text = os.read(reading, 65536).decode()
    assert "%d of %d (cannot fill in" in text
    assert "after" in text


def test_a_very_long_message_is_cut(pipe):
    reading, writing = pipe
    LineWriter(writing, "text", to_journal=False).handle(record("x" * 1_000_000))
    total = 0
    while True:
        try:
            total += len(os.read(reading, 65536))
        except BlockingIOError:
            break
    assert 16_000 < total < 17_000
