"""Both ends of the link on a real socket, each against the other and against a bad one."""

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.findings.left_out import KIND
from agent.core.model import Claim, ConnectionStatus, Happening, InstanceId
from agent.errors import EngineError, LinkError
from agent.link.client import Link, LinkLimits, LinkStats, Listener, Peer
from agent.link.messages import Call, Hello, reply
from agent.link.server import LinkServer, ServerLimits
from agent.link.sockets import listen_at, peer_of, reach
from agent.link.wire import LINE_LIMIT, Lines, encode
from tests.link.test_wire import told

SALES = InstanceId("sales")
HELLO = Hello(SALES, "run1", "sandbox", os.getpid())
UP = Claim(ConnectionStatus.CONNECTED, proof_age=1.0, paired=True)


def call(number: int, **args: Any) -> dict[str, Any]:
    return {"t": "call", "n": number, "do": "send", "args": args}


class Ears:
    """What an agent heard on a link."""

    def __init__(self) -> None:
        self.claims: list[tuple[str, Claim]] = []
        self.happened: list[Happening] = []
        self.closed: list[str] = []
        self.stats = LinkStats()

    async def open(self, path: Path, **how: Any) -> Link:
        return await Link.open(
            path,
            how.pop("expected", SALES),
            how.pop("check_peer", lambda _peer: None),
            Listener(
                lambda run, claim: self.claims.append((run, claim)),
                lambda _run, happening: self.happened.append(happening),
                self.closed.append,
            ),
            stats=self.stats,
            **how,
        )


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
            try:
                await loop.sock_sendall(
                    self.sock, bytes(each) if isinstance(each, bytes) else encode(each)
                )
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

    async def greeted(self, ears: Ears, **how: Any) -> tuple[Link, Puppet]:
        opening = asyncio.create_task(ears.open(self.path, **how))
        puppet = await self.accept()
        await puppet.say(HELLO.wire())
        assert await puppet.hear() == {"t": "hello", "v": 1}
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


async def test_a_link_is_open_only_after_the_greeting(worker: FakeWorker, ears: Ears) -> None:
    link, _ = await worker.greeted(ears)
    assert link.hello == HELLO
    assert link.peer == Peer(os.getpid(), os.getuid(), os.getgid())
    assert ears.stats.opened == 1
    await link.close()
    assert ears.closed == []


async def test_f86_a_peer_that_is_not_the_worker_is_refused(worker: FakeWorker, ears: Ears) -> None:
    with pytest.raises(LinkError, match="not the unit's process") as caught:
        await ears.open(worker.path, check_peer=lambda _peer: "not the unit's process")
    assert caught.value.code == "peer" and ears.stats.refused == {"peer": 1}


@pytest.mark.parametrize(
    "what",
    [
        "file",
        "dead socket",
    ],
)
async def test_where_no_worker_listens_it_says_so(tmp_path: Path, ears: Ears, what: str) -> None:
    path = tmp_path / "link.sock"
    if what == "file":
        path.write_text("x")
    elif what == "dead socket":
        listen_at(path).close()
    elif what == "no folder":
        path = tmp_path / "gone" / "link.sock"
    with pytest.raises(LinkError, match="cannot reach") as caught:
        await ears.open(path)
    assert caught.value.code == "unreachable" and ears.stats.refused == {"unreachable": 1}


async def test_a_worker_with_a_full_backlog_is_unreachable_and_not_waited_for(
    tmp_path: Path, ears: Ears
) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "link.sock"))
    sock.listen(0)
    waiting = [reach(tmp_path / "link.sock")]
    with pytest.raises(LinkError) as caught:
        await ears.open(tmp_path / "link.sock")
    assert caught.value.code == "unreachable"
    for each in (sock, *waiting):
        each.close()


@pytest.mark.parametrize(
    ("first", "code"),
    [
        pytest.param([], "silent", id="says nothing"),
        pytest.param([{**HELLO.wire(), "v": 2}], "version", id="newer version"),
        pytest.param([{**HELLO.wire(), "id": "other"}], "identity", id="another instance"),
        pytest.param([{**HELLO.wire(), "pid": "1"}], "malformed", id="bad pid"),
        pytest.param([told(UP)], "malformed", id="claim first"),
        pytest.param([b"GET / HTTP/1.1\r\n\r\n"], "malformed", id="another protocol"),
        pytest.param([b"x" * (LINE_LIMIT + 1)], "oversized", id="too long"),
    ],
)
async def test_a_bad_greeting_is_refused_and_counted(
    worker: FakeWorker, ears: Ears, first: list[Any], code: str
) -> None:
    limit = 0.3 if code == "silent" else 30.0
    opening = asyncio.create_task(ears.open(worker.path, timeout=limit))
    puppet = await worker.accept()
    await puppet.say(*first)
    with pytest.raises(LinkError) as caught:
        await opening
    assert caught.value.code == code
    assert ears.stats.refused == {code: 1} and ears.stats.opened == 0
    assert ears.closed == []
    if code == "version":
        told = await puppet.hear()
        assert told is not None and told["t"] == "refused" and "version" in told["why"]
    await puppet.hung_up_on()


@pytest.mark.parametrize("after", [b"x\n"], ids=["says rubbish"])
async def test_a_worker_that_greets_and_is_gone_is_no_open_link(
    worker: FakeWorker, ears: Ears, after: bytes
) -> None:
    opening = asyncio.create_task(ears.open(worker.path))
    puppet = await worker.accept()
    puppet.sock.send(encode(HELLO.wire()) + after)
    puppet.sock.close()
    with pytest.raises(LinkError) as caught:
        await opening
    assert caught.value.code == "gone"
    assert ears.closed == [] and ears.stats.opened == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param([b"x\n"], "malformed", id="not json"),
        pytest.param([reply(7, {})], "malformed", id="unasked"),
        pytest.param(
            [{"t": "claim", "run": "run1", "claim": {"status": "HAPPY"}}],
            "malformed",
            id="unknown status",
        ),
        pytest.param([told(Happening("message"))] * 5000, "flood", id="flood"),
    ],
)
async def test_f86_a_bad_message_ends_the_link_and_is_counted(
    worker: FakeWorker, ears: Ears, said: list[Any], code: str
) -> None:
    link, puppet = await worker.greeted(ears)
    probed = asyncio.create_task(link.call("probe"))
    await puppet.hear()
    await puppet.say(*said)
    with pytest.raises(LinkError) as caught:
        await probed
    assert caught.value.code == "gone"
    await puppet.hung_up_on()
    assert ears.stats.refused == {code: 1}
    assert len(ears.closed) == 1
    assert len(ears.happened) < len(said)
    with pytest.raises(LinkError):
        await link.call("probe")
    await link.close()


async def test_a_late_message_of_an_old_run_is_dropped_and_counted(
    worker: FakeWorker, ears: Ears, eventually: Any
) -> None:
    link, puppet = await worker.greeted(ears)
    await puppet.say({**told(UP), "run": "run0"}, told(UP))
    await eventually(lambda: ears.claims, [("run1", UP)])
    assert ears.stats.refused == {"old_run": 1} and ears.closed == []
    await link.close()


async def test_calls_are_answered_side_by_side_in_any_order(worker: FakeWorker, ears: Ears) -> None:
    link, puppet = await worker.greeted(ears)
    calls = [asyncio.create_task(link.call("send", {"n": number})) for number in range(3)]
    asked = [await puppet.hear() for _ in calls]
    for each in reversed(asked):
        assert each is not None and each["args"]["deadline"] < 10
        await puppet.say(reply(each["n"], {"got": each["args"]["n"]}))
    assert [(await call)["got"] for call in calls] == [0, 1, 2]
    await link.close()


async def test_a_late_answer_to_a_call_that_was_given_up_is_no_offence(
    worker: FakeWorker, ears: Ears
) -> None:
    link, puppet = await worker.greeted(ears)
    with pytest.raises(LinkError) as caught:
        await link.call("probe", timeout=0.1)
    assert caught.value.code == "timeout"
    await puppet.say(reply(1, {}))
    second = asyncio.create_task(link.call("probe"))
    await puppet.hear()
    await puppet.hear()
    await puppet.say(reply(2, {"x": 1}))
    assert await second == {"x": 1}
    assert ears.closed == []
    await link.close()


async def test_a_worker_that_never_reads_costs_no_more_than_the_calls_allowed(
    worker: FakeWorker, ears: Ears
) -> None:
    link, _ = await worker.greeted(ears, limits=LinkLimits(calls=3))
    big = {"message": {"text": "x" * 900_000}}
    calls = [asyncio.create_task(link.call("send", big, timeout=0.1)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(LinkError) as caught:
        await link.call("probe")
    assert caught.value.code == "busy"
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(each, "code", "") for each in results] == ["timeout"] * 3
    await link.close()


async def test_too_long_a_call_is_refused_here(worker: FakeWorker, ears: Ears) -> None:
    link, puppet = await worker.greeted(ears)
    with pytest.raises(LinkError) as caught:
        await link.call("send", {"message": {"text": "x" * LINE_LIMIT}})
    assert caught.value.code == "oversized"
    probed = asyncio.create_task(link.call("probe"))
    assert (await puppet.hear() or {})["n"] == 1
    await puppet.say(reply(1, {}))
    await probed
    await link.close()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=80), max_size=5))
def test_f59_f86_no_bytes_of_a_worker_harm_the_agent(tmp_path: Path, chunks: list[bytes]) -> None:
    async def play() -> None:
        ears, worker = Ears(), FakeWorker(tmp_path / "link.sock")
        link, puppet = await worker.greeted(ears)
        await puppet.say(*chunks)
        puppet.sock.close()
        with pytest.raises(LinkError):
            await link.call("probe", timeout=2)
        await link.close()
        worker.close()

    asyncio.run(play())


# the worker's side


class Served:
    """A real server, and what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.release = asyncio.Event()
        self.server: LinkServer

    async def open(self, **limits: Any) -> LinkServer:
        self.server = await LinkServer.open(
            self.path, HELLO, self.answer, lambda: UP, ServerLimits(**limits)
        )
        return self.server

    async def answer(self, call: Call) -> Mapping[str, Any]:
        self.calls.append(call)
        if call.do == "wait":
            await self.release.wait()
        elif call.do == "engine_error":
            raise EngineError("cannot do it: tired", code="tired")
        elif call.do == "bug":
            raise RuntimeError("secret detail")
        elif call.do == "big":
            return {"x": "y" * LINE_LIMIT}
        return dict(call.args)

    def puppet(self) -> Puppet:
        return Puppet(reach(self.path))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(tmp_path / "link.sock")
    yield served
    await served.server.close()


async def greeted(served: Served) -> Puppet:
    puppet = served.puppet()
    assert await puppet.hear() == HELLO.wire()
    await puppet.say({"t": "hello", "v": 1})
    assert await puppet.hear() == told(UP)
    return puppet


async def test_both_real_ends_understand_each_other(
    served: Served, ears: Ears, eventually: Any
) -> None:
    server = await served.open()
    link = await ears.open(served.path)
    await eventually(lambda: ears.claims, [("run1", UP)])
    assert (await link.call("send", {"a": 1}))["a"] == 1
    server.happened(Happening("message", {"direction": "in"}))
    await eventually(lambda: len(ears.happened), 1)
    with pytest.raises(EngineError) as caught:
        await link.call("engine_error")
    assert caught.value.code == "tired"
    with pytest.raises(EngineError) as caught:
        await link.call("bug")
    assert caught.value.code == "internal" and "secret" not in str(caught.value)
    with pytest.raises(EngineError) as caught:
        await link.call("big")
    assert caught.value.code == "oversized"
    await server.close()
    await eventually(lambda: len(ears.closed), 1)
    assert not served.path.exists()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([b"x" * (LINE_LIMIT + 1)], id="too long"),
        pytest.param([call(1)], id="calls before greeting"),
        pytest.param([{"t": "hello", "v": 9}], id="another version"),
        pytest.param([HELLO.wire()] * 2, id="greets twice"),
    ],
)
async def test_a_bad_agent_is_hung_up_on_and_a_good_one_is_not_disturbed(
    served: Served, said: list[Any]
) -> None:
    server = await served.open()
    bad = served.puppet()
    await bad.say(*said)
    await bad.hung_up_on()
    assert server.refused == 1 and served.calls == []
    good = await greeted(served)
    await good.say(call(1, x=2))
    assert await good.hear() == reply(1, {"x": 2})
    for each in (bad, good):
        each.sock.close()


async def test_a_stranger_that_says_nothing_neither_stays_nor_takes_over(served: Served) -> None:
    server = await served.open()
    agent = await greeted(served)
    server.limits = ServerLimits(greeting=0.1, strangers=2)
    strangers = [served.puppet() for _ in range(4)]
    for each in strangers:
        await each.hung_up_on()
        each.sock.close()
    assert server.linked and server.refused == 4
    await agent.say(call(1))
    assert await agent.hear() == reply(1, {})
    agent.sock.close()


async def test_an_agent_that_never_reads_loses_happenings_but_never_the_newest_claim(
    served: Served,
) -> None:
    server = await served.open(happenings=50, rate=1e9, burst=1e9)
    agent = await greeted(served)
    for number in range(20_000):
        server.happened(Happening("message", {"number": number, "x": "y" * 50}))
    last = Claim(ConnectionStatus.DISCONNECTED, "conflict")
    server.claim(UP)
    server.claim(last)
    assert server.dropped > 10_000
    heard = []
    while not heard or heard[-1].get("detail", {}).get("number") != 19_999:
        message = await agent.hear()
        assert message is not None
        heard.append(message)
    claims = [each for each in heard if each["t"] == "claim"]
    assert claims[-1] == told(last)
    happened = [each for each in heard if each["t"] == "happened"]
    numbers = [each["detail"]["number"] for each in happened if each["kind"] == "message"]
    assert numbers == sorted(numbers) and len(numbers) == 20_000 - server.dropped
    sums = [each["detail"]["counts"]["message_in"] for each in happened if each["kind"] == KIND]
    assert len(numbers) + sum(sums) == 20_000, "those that were left out are counted"
    agent.sock.close()


async def test_more_calls_than_allowed_at_once_are_busy(
    served: Served, ears: Ears, eventually: Any
) -> None:
    await served.open(calls=2)
    link = await ears.open(served.path)
    waiting = [asyncio.create_task(link.call("wait")) for _ in range(2)]
    await eventually(lambda: len(served.calls), 2)
    with pytest.raises(EngineError) as caught:
        await link.call("send")
    assert caught.value.code == "busy"
    served.release.set()
    await asyncio.gather(*waiting)
    await link.close()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=80), max_size=5), st.booleans())
def test_no_bytes_of_an_agent_harm_the_worker(
    tmp_path: Path, chunks: list[bytes], greet: bool
) -> None:
    async def play() -> None:
        served = Served(tmp_path / "link.sock")
        server = await served.open()
        bad = await greeted(served) if greet else served.puppet()
        await bad.say(*chunks)
        bad.sock.close()
        good = await greeted(served)
        good.sock.close()
        await server.close()

    asyncio.run(play())


# sockets


def test_listening_replaces_a_dead_socket_and_nothing_else(tmp_path: Path) -> None:
    listen_at(tmp_path / "link.sock").close()
    sock = listen_at(tmp_path / "link.sock")
    client = reach(tmp_path / "link.sock")
    assert peer_of(client).pid == os.getpid()
    for each in (sock, client):
        each.close()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(LinkError, match="not a socket"):
        listen_at(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
