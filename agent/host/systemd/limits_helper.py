"""Set the memory and task limits of one `wa-instance@ID.service`: the only part that runs as root.

systemd starts this file by `wa-limits.socket` (`python3 -I -S`: the standard library only). A
connection has one line, `ID HIGH MAX TASKS`: bytes, bytes and a number of tasks in digits, 0 = no
limit, `-` = leave as it is. The answer is one line: ok, not-loaded, refused, failed. No other text
of a client goes further, and no other property can be named: polkit cannot tell properties apart.
"""

import os
import pwd
import re
import socket
import struct
import sys
import time
from pathlib import Path

CLIENT = "wa-agent"
ID = r"[a-z0-9][a-z0-9_-]{0,47}"
NUMBER = rb"(-|0|[1-9][0-9]{0,15})"
LINE = re.compile(rb"(%s) %s %s %s\n" % (ID.encode(), NUMBER, NUMBER, NUMBER))
LONGEST_LINE = 128
LEAST_MEMORY, MOST_MEMORY = 32 << 20, 1 << 50
LEAST_TASKS, MOST_TASKS = 16, 1 << 22
BOUNDS = (
    ("MemoryHigh", LEAST_MEMORY, MOST_MEMORY),
    ("MemoryMax", LEAST_MEMORY, MOST_MEMORY),
    ("TasksMax", LEAST_TASKS, MOST_TASKS),
)
NO_LIMIT = (1 << 64) - 1

LINE_WITHIN = 1.0
"""Seconds that a client has for its line."""
PAUSE = 0.003
"""Seconds between two connections: a client in a loop cannot keep systemd busy."""
IDLE = 10.0
DROP_INS = Path("/run/systemd/system.control")
DROP_IN = re.compile(rf"wa-instance@({ID})\.service\.d")
MOST_DROP_INS = 4096

BUS = "/run/dbus/system_bus_socket"
BUS_WITHIN = 10.0
SYSTEMD = "org.freedesktop.systemd1"
MANAGER = ("/org/freedesktop/systemd1", f"{SYSTEMD}.Manager", SYSTEMD)
DBUS = ("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
NO_SUCH_UNIT = f"{SYSTEMD}.NoSuchUnit"
METHOD_RETURN, ERROR = 2, 3
MOST_ANSWER = 1 << 16

Properties = list[tuple[str, int]]


class Refused(Exception):
    """The error that D-Bus answered with, by its name."""


def parse(line: bytes) -> "tuple[str, Properties] | None":
    """The id and the properties to set; None for each line that is not exactly of this form."""
    match = LINE.fullmatch(line)
    if match is None:
        return None
    properties = []
    for text, (name, least, most) in zip(match.groups()[1:], BOUNDS):  # noqa: B905
        if text == b"-":
            continue
        number = int(text)
        if number and not least <= number <= most:
            return None
        properties.append((name, number or NO_LIMIT))
    return match[1].decode("ascii"), properties


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode("ascii") + b"\0"


def _pad(data: bytes, to: int = 8) -> bytes:
    return data + b"\0" * (-len(data) % to)


def limits_body(unit: str, properties: Properties) -> bytes:
    """SetUnitProperties' arguments `sba(sv)`: unit, runtime = true, the properties as numbers."""
    values = b""
    for name, number in properties:
        values = _pad(_pad(values) + _text(name) + b"\1t\0")
        values += struct.pack("<Q", number)
    head = _pad(_text(unit), 4) + struct.pack("<II", 1, len(values))
    return _pad(head) + values


class LimitsBus:
    """One connection to the system bus, for one client's line."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(BUS_WITHIN)
        self._serial = 0

    def __enter__(self) -> "LimitsBus":
        try:
            self._socket.connect(BUS)
            self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode())
            self._socket.sendall(b"\r\n")
            greeting = b""
            while not greeting.endswith(b"\r\n") and len(greeting) < LONGEST_LINE:
                greeting += self._take(1)
            if not greeting.startswith(b"OK "):
                raise Refused("AuthFailed")
            self._socket.sendall(b"BEGIN\r\n")
            self.call(DBUS, "Hello")
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(
        self, place: "tuple[str, str, str]", member: str, signature: str = "", body: bytes = b""
    ) -> None:
        """Return when the method succeeded; `Refused` with the name of the error."""
        self._serial += 1
        path, interface, destination = place
        fields = b""
        given = [(1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination)]
        for code, kind, value in given:
            fields = _pad(fields) + bytes((code, 1)) + kind.encode() + b"\0" + _text(value)
        if signature:
            length = bytes((len(signature),))
            fields = _pad(fields) + b"\10\1g\0" + length + signature.encode() + b"\0"
        head = struct.pack("<cBBBII", b"l", 1, 0, 1, len(body), self._serial)
        self._socket.sendall(_pad(head + struct.pack("<I", len(fields)) + fields) + body)
        error = self._answer()
        if error is not None:
            raise Refused(error)

    def is_loaded(self, unit: str) -> bool:
        try:
            self.call(MANAGER, "GetUnit", "s", _text(unit))
        except Refused as error:
            if str(error) == NO_SUCH_UNIT:
                return False
            raise
        return True

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the system bus closed the connection")
            data += part
        return data

    def _answer(self) -> "str | None":
        """The error's name, "" where it has none, None for success; signals are skipped."""
        while True:
            head = self._take(16)
            order = "<" if head[:1] == b"l" else ">"
            body, _, length = struct.unpack(order + "III", head[4:])
            if body + length > MOST_ANSWER:
                raise ConnectionError("the answer of the system bus is too long")
            fields = self._take(length + -length % 8)[:length]
            self._take(body)
            serial, error = _read_fields(fields, order)
            if head[1] in (METHOD_RETURN, ERROR) and serial == self._serial:
                return error if head[1] == ERROR else None


def _read_fields(fields: bytes, order: str) -> "tuple[int, str]":
    """REPLY_SERIAL (5) and ERROR_NAME (4) of a message's head."""
    serial, error, at = 0, "", 0
    while at < len(fields):
        at += -at % 8
        code, kind = fields[at], fields[at + 2 : at + 3]
        at += 4  # code, length of the signature (1), signature, end
        if kind == b"g":
            at += fields[at] + 2
            continue
        (number,) = struct.unpack_from(order + "I", fields, at)
        at += 4
        if code == 5:
            serial = number
        if kind in (b"s", b"o"):
            if code == 4:
                error = fields[at : at + number].decode("ascii", "replace")
            at += number + 1
    return serial, error


def sweep() -> int:
    """Remove the limits of units that systemd no longer has; return how many units keep some."""
    try:
        names = sorted(os.listdir(DROP_INS))  # noqa: PTH208
    except OSError:
        return 0
    kept = 0
    with LimitsBus() as bus:
        for name in names:
            match = DROP_IN.fullmatch(name)
            if match is None:
                continue
            if bus.is_loaded(f"wa-instance@{match[1]}.service"):
                kept += 1
                continue
            try:
                for file, _, _ in BOUNDS:
                    (DROP_INS / name / f"50-{file}.conf").unlink(missing_ok=True)
                (DROP_INS / name).rmdir()
            except OSError:  # other drop-ins are there: an operator's
                kept += 1
    return kept


def apply(line: bytes) -> str:
    asked = parse(line)
    if asked is None:
        return "refused"
    instance, properties = asked
    unit = f"wa-instance@{instance}.service"
    with LimitsBus() as bus:
        if not bus.is_loaded(unit):
            return "not-loaded"
        if not properties:
            return "ok"
        known = DROP_INS / f"{unit}.d"
        crowded = not known.exists() and len(os.listdir(DROP_INS)) >= MOST_DROP_INS  # noqa: PTH208
        if crowded and sweep() >= MOST_DROP_INS:
            return "refused"
        bus.call(MANAGER, "SetUnitProperties", "sba(sv)", limits_body(unit, properties))
    return "ok"


def read_line(client: socket.socket) -> bytes:
    """What came until the first newline, the end, LONGEST_LINE or LINE_WITHIN."""
    until, line = time.monotonic() + LINE_WITHIN, b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE:
        client.settimeout(max(until - time.monotonic(), 0.001))
        try:
            part = client.recv(LONGEST_LINE - len(line))
        except TimeoutError:
            break
        if not part or time.monotonic() > until:
            break
        line += part
    return line


def serve(client: socket.socket, uid: int) -> None:
    """One connection; a failure concerns its client only."""
    try:
        peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", peer)[1] != uid:
            client.sendall(b"refused\n")
            return
        try:
            answer = apply(read_line(client))
        except Refused as error:
            answer = f"failed {error}"
        client.settimeout(LINE_WITHIN)
        client.sendall(f"{answer}\n".encode("ascii", "replace"))
    except (OSError, ValueError, LookupError, struct.error) as error:
        print(f"a connection failed: {type(error).__name__}: {error}", file=sys.stderr)


def main() -> int:
    if os.environ.get("LISTEN_FDS") != "1" or os.environ.get("LISTEN_PID") != str(os.getpid()):
        print("only wa-limits.socket starts this program", file=sys.stderr)
        return 2
    uid = pwd.getpwnam(CLIENT).pw_uid
    with socket.socket(fileno=3) as listener:
        while True:
            listener.settimeout(IDLE)
            try:
                client, _ = listener.accept()
            except TimeoutError:
                break
            with client:
                serve(client, uid)
            time.sleep(PAUSE)
    try:
        sweep()
    except (OSError, Refused) as error:
        print(f"cannot remove the limits of units that are gone: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
