"""A hostile or broken client gets an error, and no other client is affected."""

import asyncio
import errno
import json
import logging
import socket

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.http.call import parse_object
from agent.core.model import InstanceId
from agent.errors import InvalidRequest
from tests.api.conftest import House, OpenHouse, envelope
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view


async def still_answers(house: House) -> None:
    async with aiohttp.ClientSession(house.url) as session:
        assert (await session.get("/healthz")).status == 200


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def test_f64_a_head_that_drips_gets_no_new_deadline_for_each_byte(
    open_house: OpenHouse,
) -> None:
    async with open_house(head_timeout=0.5) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        reading = asyncio.create_task(reader.read())
        ended = False
        for byte in b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 100:
            ended = reading.done()
            if ended:
                break
            try:
                writer.write(bytes([byte]))
                await writer.drain()
            except ConnectionError:
                ended = True
                break
            await asyncio.wait([reading], timeout=0.03)
        try:
            answer = await reading
        except ConnectionError:
            answer = b""  # a byte that came after the end: the kernel resets
        assert (answer, ended) == (b"", True), "all the bytes were taken"
        writer.close()


async def test_f64_a_second_half_head_on_a_kept_connection_is_ended_too(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        house.server._entrance.idle_seconds = 1.0
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(request("GET /healthz"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /hea")
        async with asyncio.timeout(30):
            await reader.read()
        writer.close()


async def test_f64_a_body_that_never_comes_is_408(open_house: OpenHouse) -> None:
    async with open_house(body_timeout=0.3) as house:
        key = await house.key("operate")
        head = request(
            "POST /api/instance",
            f"Authorization: {key['Authorization']}",
            "Content-Type: application/json",
            "Content-Length: 100",
            body=b'{"id"',
        )
        answer = await house.raw(head)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert envelope(answer)["error"] == "too_slow"
        await still_answers(house)


async def test_who_lacks_the_right_is_refused_before_its_body_is_asked_for(house: House) -> None:
    key, more = await house.key("read"), ("Content-Type: application/json", "Content-Length: 2")
    head = ("POST /api/instance", "Expect: 100-continue", *more)
    answer = await house.raw(request(*head, f"Authorization: {key['Authorization']}"))
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request("GET /healthz", "X: " + "y" * 20_000), id="a huge header"),
        pytest.param(
            request("GET /healthz", *(f"X-{n}: y" for n in range(500))), id="many headers"
        ),
        pytest.param(request("GET /" + "x" * 20_000), id="a huge address"),
        pytest.param(
            request(
                "POST /api/instance",
                "Content-Length: 4",
                "Transfer-Encoding: chunked",
                body=b"0\r\n\r\n",
            ),
            id="two lengths (smuggling)",
        ),
        pytest.param(
            request("POST /api/instance", "Content-Length: 4", "Content-Length: 5", body=b"abcd")
        ),
        pytest.param(request("POST /api/instance", "Content-Length: -1"), id="a negative length"),
        pytest.param(request("GET /healthz", "Bad Header: x"), id="a space in a name"),
        pytest.param(request("GET /healthz", "A: b\x00c"), id="a NUL in a header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS on a plain port"),
        pytest.param(b"GARBAGE\r\n\r\n", id="no HTTP at all"),
    ],
)
async def test_f66_f68_what_is_not_http_is_400_or_431_in_the_envelope(
    house: House, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await house.raw(sent)
    too_long = b"x" * 9000 in sent or b"y" * 9000 in sent
    assert answer.split()[1] == (b"431" if too_long else b"400"), answer[:80]
    assert envelope(answer)["error"] == "invalid_request"
    assert "Traceback" not in caplog.text
    await still_answers(house)


@pytest.mark.parametrize("name", ["Authorization", "Idempotency-Key"])
async def test_of_two_headers_that_decide_none_is_taken(house: House, name: str) -> None:
    key = (await house.key("admin"))["Authorization"]
    head = (f"Authorization: {key}", f"{name}: Bearer x", f"{name}: Bearer y", "Connection: close")
    answer = await house.raw(request("POST /api/reload", *dict.fromkeys(head)))
    assert (answer.split()[1], envelope(answer)["field"]) == (b"400", name)
    assert not house.server._parts.reload.is_set()


async def test_a_disk_that_is_full_is_507_in_every_handler(house: House) -> None:
    """An import was answered with 500, and a traceback stood in the log."""

    async def full(*_asked: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    house.supervisor.history = full
    async with house.local(base_url="http://localhost") as local:
        answer = await local.get("/api/events")
        assert (answer.status, (await answer.json())["error"]) == (507, "disk_full")


@pytest.mark.parametrize(
    "id",
    [*("../x", "..%2fx", "%2e%2e", "a%0ab", "a%00", "A", "a.service", "x" * 49, "%c3%a9", "%")],
)
async def test_f69_a_foul_id_never_reaches_the_supervisor(house: House, id: str) -> None:
    key = await house.key("admin")
    for method, rest in (("GET", ""), ("GET", "/qr"), ("POST", "/stop"), ("DELETE", "")):
        sent = (
            f"{method} /api/instance/{id}{rest} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: {key['Authorization']}\r\nConnection: close\r\n\r\n"
        )
        answer = await house.raw(sent.encode())
        assert int(answer.split()[1]) in (400, 404), answer[:100]
        assert envelope(answer)["error"] in ("invalid_id", "unknown_route", "invalid_request")
    assert not house.supervisor.journal


@pytest.mark.parametrize("id", ["../x", "a\nb", "", "x" * 49, 5, None])
async def test_f69_a_foul_id_in_a_body_is_400(house: House, id: object) -> None:
    async with house.local(base_url="http://localhost") as local:
        answer = await local.post("/api/instance", json={"id": id, "engine": "sandbox"})
        assert answer.status == 400
        assert (await answer.json())["error"] in ("invalid_id", "invalid_request", "invalid_json")
    assert not house.supervisor.known


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"[]", b"\xff\xfe", b"{}x", b'{"id": NaN}', b'{"a": 1e999}', b'{"\\u0000": 1}'),
        *(b'{"a": "\\ud800"}', b'{"a": "\\u0000"}', b'{"a": ' + b"9" * 5000 + b"}"),
        pytest.param(b"[" * 200_000 + b"]" * 200_000, id="200,000 nested arrays"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, id="40 nested objects"),
    ],
)
async def test_f67_bad_json_is_400(
    house: House, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with house.local(base_url="http://localhost") as local:
        headers = {"Content-Type": "application/json"}
        answer = await local.post("/api/instance", data=body, headers=headers)
        told = await answer.json()
        assert (answer.status, told["error"]) == (400, "invalid_json")
        assert ("half a character" in told["message"]) is (b"\\ud8" in body)
    assert "Traceback" not in caplog.text


async def test_f65_a_body_over_the_limit_is_413_said_or_streamed(open_house: OpenHouse) -> None:
    async with (
        open_house(body_limit=1024) as house,
        house.local(base_url="http://localhost") as local,
    ):

        async def stream() -> object:
            for _ in range(40):
                yield b" " * 100

        headers = {"Content-Type": "application/json"}
        for data in (b" " * 4000, stream()):
            answer = await local.post("/api/instance", data=data, headers=headers)
            assert answer.status == 413
            assert (await answer.json())["error"] == "too_large"


async def test_compressed_and_foreign_bodies_are_415(house: House) -> None:
    async with house.local(base_url="http://localhost") as local:
        packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        foreign = ("text/plain", "application/x-www-form-urlencoded")
        for headers in (packed, {}, *({"Content-Type": kind} for kind in foreign)):
            answer = await local.post("/api/instance", data=b"{}", headers=headers)
            assert answer.status == 415, headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Host: evil.example",), 403),
        (("Host: localhost.evil.example",), 403),
        (("Host: localhost", "Host: localhost"), 400),
        (("Host: user@localhost",), 400),
        ((), 400),
        (("Host: localhost:99",), 200),
        (("Host: [::1]:8470",), 200),
        (("Host: wa.example.org",), 200),
    ],
)
async def test_f75_only_our_names_are_answered(
    open_house: OpenHouse, headers: tuple[str, ...], status: int
) -> None:
    async with open_house(allowed_hosts=("wa.example.org",)) as house:
        sent = "\r\n".join(["GET /healthz HTTP/1.1", *headers, "Connection: close", "", ""])
        answer = await house.raw(sent.encode())
        assert int(answer.split()[1]) == status, answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({}, 202),
    ],
)
async def test_f75_a_foreign_page_moves_nothing(
    open_house: OpenHouse, headers: dict[str, str], status: int
) -> None:
    async with (
        open_house(trust_loopback=True) as house,
        aiohttp.ClientSession(house.url) as session,
    ):
        house.supervisor.known[InstanceId("sales")] = make_view("sales")
        assert (await session.post("/api/instance/sales/stop", headers=headers)).status == status
        own = {"Origin": house.url}
        assert (await session.post("/api/instance/sales/start", headers=own)).status == 202


@pytest.mark.parametrize("name", ["token", "Access_Token"])
async def test_f78_a_secret_in_the_address_is_refused_and_not_logged(
    house: House, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with aiohttp.ClientSession(house.url) as session:
        answer = await session.get(f"/healthz?{name}=wak_abcdefgh_sesame")
        assert answer.status == 400
        found = await answer.json()
        assert found["error"] == "token_in_query"
    assert "sesame" not in caplog.text
    assert "sesame" not in json.dumps(found)


async def test_unknown_parameters_and_fields_are_named(house: House) -> None:
    async with house.local(base_url="http://localhost") as local:
        for query, cause in (
            *(("limit=-1", "'limit': it must be at least 1"), ("before=-1", "at least 0")),
            *(("limit=1_0", "'limit': it must be a whole number"), ("x=1", "'x': unknown field")),
        ):
            answer = await local.get(f"/api/events?{query}")
            assert answer.status == 400, query
            assert cause in (await answer.json())["message"]
        body = {"id": "a", "engine": "sandbox", "colour": 1}
        answer = await local.post("/api/instance", json=body)
        assert (answer.status, (await answer.json())["field"]) == (400, "colour")


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    last = request("GET /readyz", "Connection: close")
    answer = await house.raw(request("GET /healthz") * 20 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 21
    assert b'"ready":true' in answer.rpartition(b"HTTP/1.1")[2]


async def test_a_failure_of_our_own_is_500_without_its_cause(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    house.supervisor.breaks_with = RuntimeError("the password is sesame")
    async with house.local(base_url="http://localhost") as local:
        answer = await local.post("/api/instance/sales/stop")
        assert answer.status == 500
        found = await answer.json()
        assert found["error"] == "internal"
        assert "sesame" not in json.dumps(found)
    assert found["request"] in caplog.text, "the log says what the answer does not"


async def test_an_answer_that_its_client_does_not_read_ends(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with open_house() as house:
        house.server._entrance.write_seconds = 0.3
        for number in range(1000):
            id = InstanceId(f"i{number}")
            house.supervisor.known[id] = make_view(id)
        key = await house.key("read")
        connections = house.server._entrance.connections
        await eventually(lambda: not connections)  # the one that made the key
        ask = request("GET /metrics", f"Authorization: {key['Authorization']}")
        counted = house.server._runner.server
        before = counted.requests_count
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", house.port))
            client.sendall(ask * 5)
            await eventually(lambda: counted.requests_count > before)
            await eventually(lambda: not connections)
        await still_answers(house)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_f67_whatever_the_bytes_are_parsing_gives_an_object_or_says_no(raw: bytes) -> None:
    try:
        found = parse_object(raw)
    except InvalidRequest as error:
        assert len(str(error)) < 500
        return
    assert isinstance(found, dict)
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


def test_an_error_of_json_names_line_and_column() -> None:
    with pytest.raises(InvalidRequest, match=r"\(line 2, column 6\)$"):
        parse_object('{\n"é": x}'.encode())
