"""The whole server in trouble: what is said of it, and that nothing is said of its sessions."""

import time
from dataclasses import replace

import pytest
from aiohttp import web

from agent.engines.remote.answers import LARGEST_BODY
from agent.errors import EngineError
from tests.conftest import Eventually
from tests.engines.evolution.conftest import PACE, Bench, MakeBench, MakeStandIn
from tests.standin.evolution import KEY, StandIn
from tests.standin.evolution.certificates import Certificates


async def test_a_healthy_server_is_reported_once(bench: Bench, eventually: Eventually) -> None:
    bench.standin.add("sales", "open")
    await bench.backend.open()
    await eventually(lambda: len(bench.heard.servers), 1)
    assert bench.heard.servers[0].up
    assert bench.heard.servers[0].version == "2.3.7"
    assert bench.heard.servers[0].sessions == 1, "no session was known: its list was asked for"
    assert [each.name for each in await bench.backend.sessions()] == ["sales"]
    begun = time.monotonic()
    claim = await bench.backend.check()
    assert (claim.up, claim.reason, claim.sessions) == (True, "", 1)
    assert 0 < claim.seconds <= time.monotonic() - begun
    assert len(bench.heard.servers) == 1, "nothing has changed"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reset", "unreachable"),
        ("black_hole", "timeout"),
        ("html", "garbage"),
        ("licence", "licence_missing"),
    ],
)
async def test_every_trouble_has_its_reason_and_ends(
    *,
    make_stand_in: MakeStandIn,
    make_bench: MakeBench,
    eventually: Eventually,
    fault: str,
    reason: str,
) -> None:
    standin = await make_stand_in()
    bench = await make_bench(standin, timeout=1.5 if reason == "timeout" else 20.0)
    standin.add("sales", "open")
    session = bench.hold("sales")
    await session.probe()
    await standin.front.set(fault, seconds=60)
    with pytest.raises(EngineError) as caught:
        await session.probe(deep=True)
    assert caught.value.code == "backend_down"
    assert KEY not in str(caught.value)
    # One failing request is a doubt; the check that it causes says what it is.
    await eventually(
        lambda: [(each.up, each.reason) for each in bench.heard.servers], [(False, reason)]
    )
    assert bench.heard.servers[0].sentence.startswith("cannot ")
    assert "sales" not in bench.heard.servers[0].sentence, "it is told of all its sessions"
    assert bench.by_id["sales"].claims == [], "nothing is known of the session"
    with pytest.raises(EngineError):
        await bench.backend.sessions()

    await standin.front.set("")
    assert (await session.probe()).claim.proof_age == 0.0
    await eventually(lambda: [each.up for each in bench.heard.servers], [False, True])


async def test_a_session_that_no_request_can_name_is_left_out_and_named(
    bench: Bench, eventually: Eventually
) -> None:
    for name in ("..", ".", "shop", "desk"):
        bench.standin.add(name, "open")
    assert sorted(row.name for row in await bench.backend.sessions()) == ["desk", "shop"]
    claim = await bench.backend.check()
    assert claim.up
    assert "left out here: '..', '.'" in claim.sentence


async def test_a_wrong_key_is_named_although_missing_sessions_answer_without_one(
    make_bench: MakeBench, standin: StandIn, eventually: Eventually
) -> None:
    bench = await make_bench(standin, key="not-the-key-0123456789")
    claim = (await bench.hold("nobody").probe()).claim
    assert (claim.raw, claim.reason) == ("missing", ""), "no list says that it is gone"
    standin.add("sales", "open")
    with pytest.raises(EngineError, match="refuses the key") as caught:
        await bench.hold("sales").probe()
    assert caught.value.code == "backend_down"
    server = await bench.backend.check()
    assert (server.up, server.reason) == (False, "refused_key")
    assert "not-the-key" not in repr(server) + str(caught.value)


async def test_f60_a_certificate_of_our_own_authority_is_taken_and_no_other(
    make_bench: MakeBench, make_stand_in: MakeStandIn, certificates: Certificates
) -> None:
    standin = await make_stand_in(tls=certificates.context("good"))
    trusted = await make_bench(standin, ca_file=str(certificates.authority))
    assert (await trusted.backend.check()).up
    unknown = await make_bench(standin)
    claim = await unknown.backend.check()
    assert (claim.up, claim.reason) == (False, "tls")
    assert "certificate is refused" in claim.sentence

    await standin.front.new_certificate(certificates.context("self"))
    claim = await trusted.backend.check()
    assert (claim.up, claim.reason) == (False, "tls")
    unsafe = await make_bench(standin, tls_verify=False)
    assert (await unsafe.backend.check()).up

    await standin.front.new_certificate(None)  # https to a server that speaks none
    plain = await make_bench(standin, url=standin.url.replace("http:", "https:"))
    assert (await plain.backend.check()).reason == "tls"


async def test_a_redirect_takes_the_key_nowhere(make_bench: MakeBench, standin: StandIn) -> None:
    seen: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.headers.get("apikey"))
        if not request.path.startswith("/moved"):
            raise web.HTTPFound("/moved" + request.path)
        return web.json_response([])

    url, runner = await _serve(elsewhere)
    bench = await make_bench(standin, url=url)
    claim = await bench.backend.check()
    assert (claim.up, claim.reason) == (False, "not_found")
    assert len(seen) == 1
    await runner.cleanup()


async def test_an_endless_answer_is_cut_off(make_bench: MakeBench, standin: StandIn) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        reply = web.StreamResponse()
        await reply.prepare(request)
        while True:
            await reply.write(b" " * 65536)
            sent += 65536

    url, runner = await _serve(endless)
    bench = await make_bench(standin, url=url, timeout=20)
    assert (await bench.backend.check()).reason == "garbage"
    assert sent < 3 * LARGEST_BODY
    await runner.cleanup()


async def test_a_probe_says_backend_down_before_its_caller_gives_up(
    make_stand_in: MakeStandIn, make_bench: MakeBench
) -> None:
    """Who asks waits ten seconds: a timeout of his own would be held against the session."""
    standin = await make_stand_in()
    bench = await make_bench(standin, timeout=30, pace=replace(PACE, probe_limit=0.4))
    standin.add("sales", "open")
    session = bench.hold("sales")
    await standin.front.set("black_hole")
    for deep in (False, True):
        with pytest.raises(EngineError, match=r"within 0\.4 s") as caught:
            await session.probe(deep=deep)
        assert caught.value.code == "backend_down"


async def _serve(handler: object) -> tuple[str, web.AppRunner]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}", runner
