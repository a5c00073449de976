"""Both ends of the link on a real socket, each against the other and against a bad one."""

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import KEPT, Claim, ConnectionStatus, Happening, InstanceId
from agent.errors import EngineError, LinkError
from agent.link import client, server
from agent.link.client import Link, Listener
from agent.link.server import LinkServer
from agent.link.wire import LINE_LIMIT, Call, Hello, Lines, encode, listen_at, peer_of, reach, reply
from tests.link.test_wire import told
from tests.refused import refused

SALES = InstanceId("sales")
HELLO = Hello(SALES, "run1", "sandbox", os.getpid())
UP = Claim(ConnectionStatus.CONNECTED, proof_age=1.0, paired=True)


def call(number: int, do: str = "send", **args: Any) -> dict[str, Any]:
    return {"t": "call", "n": number, "do": do, "args": args}


def greeting(**changed: Any) -> dict[str, Any]:
    return reply(1, {**asdict(HELLO), **changed})


class Ears:
    """Claims, happenings and ends that an agent heard on a link."""

    def __init__(self) -> None:
        self.claims: list[tuple[str, Claim]] = []
        self.happened: list[Happening] = []
        self.closed: list[str] = []

    async def open(self, path: Path, *, pid: int = HELLO.pid, timeout: float = 5.0) -> Link:
        listener = Listener(
            lambda run, claim: self.claims.append((run, claim)),
            lambda _run, happening: self.happened.append(happening),
            self.closed.append,
        )
        return await Link.open(path, SALES, pid, listener, timeout=timeout)


class Puppet:
    """The other end as raw bytes: what a hostile worker or agent would send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self._lines = Lines()
        self._heard: deque[bytes] = deque()

    async def say(self, *messages: Mapping[str, Any] | bytes) -> None:
        loop = asyncio.get_running_loop()
        for each in messages:
            line = bytes(each) if isinstance(each, bytes) else encode(each)
            try:
                await loop.sock_sendall(self.sock, line)
            except OSError:
                return  # hung up on

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None when the other end hung up."""
        async with asyncio.timeout(30):
            while not self._heard:
                try:
                    chunk = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
                except ConnectionResetError:
                    return None
                if not chunk:
                    return None
                self._heard.extend(self._lines.feed(chunk))
            message: dict[str, Any] = json.loads(self._heard.popleft())
            return message

    async def hung_up_on(self) -> None:
        while await self.hear() is not None:
            pass


class FakeWorker:
    """Listens where a worker would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = listen_at(path)
        self._puppets: list[Puppet] = []

    async def accept(self) -> Puppet:
        async with asyncio.timeout(30):
            sock, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._puppets.append(Puppet(sock))
        return self._puppets[-1]

    async def greeted(self, ears: Ears) -> tuple[Link, Puppet]:
        opening = asyncio.create_task(ears.open(self.path))
        puppet = await self.accept()
        asked = await puppet.hear() or {}
        assert (asked["n"], asked["do"], asked["args"]["v"]) == (1, "hello", 1)
        await puppet.say(greeting())
        return await opening, puppet

    def close(self) -> None:
        self._listener.close()
        for puppet in self._puppets:
            puppet.sock.close()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[FakeWorker]:
    fake = FakeWorker(tmp_path / "link.sock")
    yield fake
    fake.close()


@pytest.fixture
def ears() -> Ears:
    return Ears()


# the agent's side


async def test_f86_a_peer_that_is_not_the_worker_is_refused(worker: FakeWorker, ears: Ears) -> None:
    with refused(LinkError, "peer", match=f"process {os.getpid()} answers, not 1"):
        await ears.open(worker.path, pid=1)


@pytest.mark.parametrize("what", ["file", "dead socket", "full backlog"])
async def test_where_no_worker_answers_it_says_so_at_once(
    tmp_path: Path, ears: Ears, what: str
) -> None:
    path, held = tmp_path / "link.sock", []
    if what == "file":
        path.write_text("x")
    elif what == "dead socket":
        listen_at(path).close()
    else:
        held.append(socket.socket(socket.AF_UNIX))
        held[0].bind(str(path))
        held[0].listen(0)
        held.append(reach(path, os.getpid()))
    with refused(LinkError, "unreachable", match=r"cannot reach \S+: [A-Z][a-z]"):
        await ears.open(path)
    for each in held:
        each.close()


OLDER = {"t": "reply", "n": 1, "error": "cannot speak version 1", "code": "version", "field": ""}


@pytest.mark.parametrize(
    ("first", "code"),
    [
        pytest.param([], "timeout", id="says nothing"),
        pytest.param([OLDER], "version", id="another version"),
        pytest.param([{**OLDER, "code": "x"}], "x", id="a code of its own"),
        pytest.param([greeting(id="other")], "identity", id="another instance"),
        pytest.param([greeting(pid="1")], "malformed", id="bad pid"),
        pytest.param([told(UP)], "malformed", id="claim first"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\n"], "malformed", id="another protocol"),
        pytest.param([b"x" * (LINE_LIMIT + 1)], "oversized", id="too long"),
        pytest.param([encode(greeting()) + b"x\n"], "gone", id="greets and says rubbish"),
    ],
)
async def test_a_bad_greeting_is_refused(
    worker: FakeWorker, ears: Ears, first: list[Any], code: str
) -> None:
    opening = asyncio.create_task(
        ears.open(worker.path, timeout=0.3 if code == "timeout" else 30.0)
    )
    puppet = await worker.accept()
    await puppet.say(*first)
    with refused(LinkError, code):
        await opening
    assert ears.closed == []
    await puppet.hung_up_on()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"x\n", id="not json"),
        pytest.param(reply(7, {}), id="unasked"),
        pytest.param({"t": "claim", "claim": {"status": "HAPPY"}}, id="unknown status"),
    ],
)
async def test_f86_a_bad_message_ends_the_link(worker: FakeWorker, ears: Ears, said: Any) -> None:
    link, puppet = await worker.greeted(ears)
    probed = asyncio.create_task(link.call("probe"))
    await puppet.hear()
    await puppet.say(said)
    with refused(LinkError, "gone"):
        await probed
    await puppet.hung_up_on()
    assert len(ears.closed) == 1
    with pytest.raises(LinkError):
        await link.call("probe")
    await link.close()


async def test_f86_a_worker_that_says_too_much_is_read_more_slowly(
    worker: FakeWorker, ears: Ears, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BURST", 100.0)
    monkeypatch.setattr(client, "RATE", 1.0)
    link, puppet = await worker.greeted(ears)
    flood = asyncio.create_task(puppet.say(*[told(Happening("message", {"x": "y" * 900}))] * 5000))
    await eventually(lambda: len(ears.happened) > 100)
    assert not link._transport.is_reading()  # type: ignore[union-attr]
    assert len(ears.happened) < 5000 and not flood.done()
    await link.close()
    await flood


async def test_calls_are_answered_side_by_side_in_any_order(worker: FakeWorker, ears: Ears) -> None:
    link, puppet = await worker.greeted(ears)
    calls = [asyncio.create_task(link.call("send", {"x": number})) for number in range(3)]
    asked = [await puppet.hear() for _ in calls]
    for each in reversed(asked):
        assert each is not None and each["args"]["deadline"] < 10
        await puppet.say(reply(each["n"], {"got": each["args"]["x"]}))
    assert [(await call)["got"] for call in calls] == [0, 1, 2]
    await link.close()


async def test_a_late_answer_to_a_call_that_was_given_up_is_no_offence(
    worker: FakeWorker, ears: Ears
) -> None:
    link, puppet = await worker.greeted(ears)
    with refused(LinkError, "timeout"):
        await link.call("probe", timeout=0.1)
    await puppet.say(reply(2, {}))
    second = asyncio.create_task(link.call("probe"))
    await puppet.hear()
    await puppet.hear()
    await puppet.say(reply(3, {"x": 1}))
    assert await second == {"x": 1}
    assert ears.closed == []
    await link.close()


async def test_a_worker_that_never_reads_costs_no_more_than_the_calls_allowed(
    worker: FakeWorker, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_CALLS", 3)
    link, _ = await worker.greeted(ears)
    big = {"message": {"text": "x" * 900_000}}
    with refused(LinkError, "oversized"):
        await link.call("send", {"message": {"text": "x" * LINE_LIMIT}})
    calls = [asyncio.create_task(link.call("send", big, timeout=0.1)) for _ in range(3)]
    await asyncio.sleep(0)
    with refused(LinkError, "busy"):
        await link.call("probe")
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(each, "code", "") for each in results] == ["timeout"] * 3
    await link.close()


# the worker's side


class Served:
    """A real server, and what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.server: LinkServer

    async def open(self) -> LinkServer:
        self.server = await LinkServer.open(self.path, HELLO, self.answer, lambda: UP)
        return self.server

    async def answer(self, call: Call) -> Mapping[str, Any]:
        self.calls.append(call)
        if call.do == "engine_error":
            raise EngineError("cannot do it: tired", code="tired")
        if call.do == "bug":
            raise RuntimeError("secret detail")
        if call.do == "big":
            return {"x": "y" * LINE_LIMIT}
        if call.do == "hangs":
            await asyncio.Event().wait()
        return dict(call.args)

    def puppet(self) -> Puppet:
        return Puppet(reach(self.path, os.getpid()))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(tmp_path / "link.sock")
    await served.open()
    yield served
    await served.server.close()


async def greeted(served: Served) -> Puppet:
    puppet = served.puppet()
    await puppet.say(call(1, "hello", v=1))
    assert await puppet.hear() == greeting()
    assert await puppet.hear() == told(UP)
    return puppet


async def test_both_real_ends_understand_each_other(
    served: Served, ears: Ears, eventually: Any
) -> None:
    link = await ears.open(served.path)
    assert link.hello == HELLO
    await eventually(lambda: ears.claims, [("run1", UP)])
    assert (await link.call("send", {"a": 1}))["a"] == 1
    served.server.happened(Happening("message", {"direction": "in"}))
    await eventually(lambda: len(ears.happened), 1)
    for do, code in (("engine_error", "tired"), ("bug", "internal"), ("big", "oversized")):
        with refused(EngineError, code) as caught:
            await link.call(do)
        assert "secret" not in str(caught.value)
    await link.close()
    assert ears.closed == [], "it hung up itself"
    again = await ears.open(served.path)
    await served.server.close()
    await eventually(lambda: len(ears.closed), 1)
    assert not served.path.exists()
    await again.close()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([b"x" * (LINE_LIMIT + 1)], id="too long"),
        pytest.param([call(1)], id="calls before greeting"),
        pytest.param([b'{"t": "call", "n": 1, "do": 2, "args": {}}\n'], id="no call"),
    ],
)
async def test_a_bad_agent_is_hung_up_on_and_a_good_one_is_not_disturbed(
    served: Served, said: list[Any]
) -> None:
    good = await greeted(served)
    bad = served.puppet()
    await bad.say(*said)
    await bad.hung_up_on()
    assert served.calls == []
    await good.say(call(2, x=2))
    assert await good.hear() == reply(2, {"x": 2})
    for each in (bad, good):
        each.sock.close()


async def test_an_agent_of_another_version_is_told_so(served: Served) -> None:
    other = served.puppet()
    await other.say(call(1, "hello", v=9))
    told = await other.hear() or {}
    assert told["code"] == "version" and "version 9" in told["error"]
    other.sock.close()


async def test_strangers_neither_stay_without_end_nor_take_over(served: Served) -> None:
    agent = await greeted(served)
    strangers = [served.puppet() for _ in range(server.MOST_STRANGERS + 2)]
    for each in strangers[:2]:
        await each.hung_up_on()
    newest = await greeted(served)
    await agent.hung_up_on()
    await newest.say(call(2))
    assert await newest.hear() == reply(2, {})
    for each in (*strangers, agent, newest):
        each.sock.close()


async def test_an_agent_that_comes_while_the_server_closes_is_hung_up_on(served: Served) -> None:
    """In a pack the process goes on, and so would the connection."""
    late = served.puppet()
    for _ in range(3):  # accepted, and not yet told to the server
        await asyncio.sleep(0)
    assert not served.server.strangers
    await served.server.close()
    await late.hung_up_on()
    late.sock.close()


async def test_a_server_whose_close_is_broken_off_hangs_up_all_the_same(
    served: Served, eventually: Any
) -> None:
    agent = await greeted(served)
    await agent.say(call(2, "hangs"))
    await eventually(lambda: served.calls)
    closing = asyncio.create_task(served.server.close())
    await asyncio.sleep(0)
    closing.cancel()
    await agent.hung_up_on()
    agent.sock.close()
    assert not served.path.exists()


async def test_an_agent_that_never_reads_loses_events_but_never_the_newest_claim(
    served: Served,
) -> None:
    agent = await greeted(served)
    for number in range(20_000):
        served.server.happened(Happening("message", {"number": number, "x": "y" * 50}))
        served.server.happened(Happening(KEPT, {"cursor": number}))
    last = Claim(ConnectionStatus.DISCONNECTED, "conflict")
    served.server.claim(UP)
    served.server.claim(last)
    heard = []
    while not heard or heard[-1].get("detail", {}).get("number") != 19_999:
        message = await agent.hear()
        assert message is not None
        heard.append(message)
    assert [each for each in heard if each["t"] == "claim"] == [told(last)]
    events = [each for each in heard if each["t"] == "event"]
    numbers = [each["detail"]["number"] for each in events if each["kind"] == "message"]
    assert numbers == sorted(numbers) and server.MOST_EVENTS <= len(numbers) < 10_000
    cursors = [each["detail"]["cursor"] for each in events if each["kind"] == KEPT]
    assert cursors[-1] == 19_999, "how far they are kept takes no place of theirs"
    agent.sock.close()


# sockets


def test_listening_replaces_a_dead_socket_and_nothing_else(tmp_path: Path) -> None:
    listen_at(tmp_path / "link.sock").close()
    sock = listen_at(tmp_path / "link.sock")
    assert (tmp_path / "link.sock").stat().st_mode & 0o777 == 0o660
    agent = reach(tmp_path / "link.sock", os.getpid())
    assert peer_of(agent) == os.getpid()
    for each in (sock, agent):
        each.close()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(LinkError, match="not a socket"):
        listen_at(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
