"""The sandbox's engine under any order of requests and faults."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.model import Claim, ConnectionStatus, Happening
from agent.engines.base import KeepsNothing
from agent.engines.sandbox.engine import SandboxEngine, open_engine
from agent.engines.sandbox.files import read_session
from agent.errors import WaError

QUICK = {
    "scan_after": 0.005,
    "login_seconds": 0.002,
    "sync_seconds": 0.004,
    "frame_every": 0.05,
    "messages_per_minute": 6000,
}
GENTLE = ["zombie", "drop", "conflict", "logout", "ban", "temp-ban", "outdated"]
PAIRING = ["no-qr", "passkey", "no-pairing"]
FAULTS = [*GENTLE, *PAIRING, "stuck-loading", "bad-mac", "prekey", "leak", "slow"]


class Heard(KeepsNothing):
    """A Reporter that writes down."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.happened_: list[Happening] = []
        self.crashes: list[BaseException] = []

    def claim(self, claim: Claim) -> None:
        self.claims.append(claim)

    def happened(self, happening: Happening) -> None:
        self.happened_.append(happening)

    def progress(self) -> None:
        pass

    def crashed(self, error: BaseException) -> None:
        self.crashes.append(error)


def fault(name: str) -> st.SearchStrategy[tuple[str, Any]]:
    more: dict[str, Any] = {"seconds": 0.001} if name == "slow" else {}
    if name == "leak":
        more = {"bytes_per_second": 1000}
    lasting = st.sampled_from([None, 0.02, 5])
    return lasting.map(lambda seconds: ("fault", {"name": name, "for": seconds, **more}))


steps = st.one_of(
    st.sampled_from(
        [
            *(("connect", None), ("disconnect", None), ("probe", None), ("qr", None)),
            *(("send", None), ("logout", None), ("save", None), ("scan", None), ("wait", None)),
            ("regenerate_keys", None),
        ]
    ),
    st.sampled_from(FAULTS).flatmap(fault),
    st.just(("fault", {"name": "clear"})),
)


async def do(engine: SandboxEngine, name: str, arguments: Any) -> None:
    message = {"to": "1@s.whatsapp.net", "text": "hello"}
    calls: dict[str, Callable[[], Any]] = {
        "connect": engine.connect,
        "disconnect": engine.disconnect,
        "probe": lambda: engine.probe(deep=True),
        "qr": engine.qr,
        "send": lambda: engine.send(message),
        "logout": engine.logout,
        "save": engine.save,
        "scan": lambda: engine.command("scan", {}),
        "regenerate_keys": lambda: engine.regenerate_keys(["5511900000001@s.whatsapp.net"]),
        "fault": lambda: engine.command("fault", arguments),
        "wait": lambda: asyncio.sleep(0.01),
    }
    try:
        async with asyncio.timeout(60):
            await calls[name]()
    except WaError:
        pass  # a refusal is an answer


async def play(folder: Path, played: list[tuple[str, Any]], together: bool) -> None:
    session = folder / "sales" / "session"
    session.mkdir(parents=True)
    heard = Heard()
    engine = open_engine(session, QUICK, heard)
    assert isinstance(engine, SandboxEngine)
    work = [do(engine, *step) for step in played]
    if together:
        await asyncio.gather(*work)
    else:
        for each in work:
            await each
    await engine.command("fault", {"name": "clear"})
    async with asyncio.timeout(60):
        while (await engine.probe()).claim.status is not ConnectionStatus.CONNECTED:
            await engine.connect()
            await asyncio.sleep(0.005)
    last = (await engine.probe()).claim
    assert last.paired and last.proof_age is not None and last.proof_age < 1
    await engine.prepare_stop()
    await engine.save()
    await engine.close()
    assert heard.crashes == []
    saved = read_session(session)
    assert saved is not None and saved.paired and saved.account == last.account
    assert len(asyncio.all_tasks()) == 1, "nothing goes on after close"
    for claim in heard.claims:
        connected = claim.status in (ConnectionStatus.CONNECTED, ConnectionStatus.LOADING)
        assert not connected or (claim.paired and claim.proof_age is not None)
        assert claim.status is not ConnectionStatus.DISCONNECTED or claim.proof_age is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=12), st.booleans())
def test_the_engine_connects_again_after_any_orders_and_faults(
    played: list[tuple[str, Any]], together: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(play(Path(name), played, together))


async def test_messages_flow_at_their_rate_with_directions_and_acks(
    tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "sales" / "session").mkdir(parents=True)
    heard = Heard()
    engine = open_engine(tmp_path / "sales" / "session", QUICK, heard)
    await engine.connect()
    await eventually(lambda: len(heard.happened_) >= 30)
    kinds = [(each.kind, each.detail.get("direction")) for each in heard.happened_]
    assert kinds[:3] == [("message", "in"), ("message", "out"), ("ack", None)]
    assert not any("text" in each.detail for each in heard.happened_)
    await engine.prepare_stop()
    quiet = len(heard.happened_)
    await asyncio.sleep(0.05)
    assert len(heard.happened_) == quiet, "nothing new once a stop is near"
    await engine.close()


async def test_a_paired_session_is_never_called_unpaired_while_it_comes_up(
    tmp_path: Path, eventually: Any
) -> None:
    session = tmp_path / "sales" / "session"
    session.mkdir(parents=True)
    for first in (True, False):
        heard = Heard()
        engine = open_engine(session, QUICK, heard)
        await engine.connect()
        await eventually(lambda h=heard: h.claims and h.claims[-1].status == "CONNECTED")
        await engine.save()
        await engine.close()
        assert first or all(claim.paired and claim.account for claim in heard.claims)


async def test_a_pairing_that_is_being_written_does_not_ask_for_a_code(tmp_path):
    """Or a check in between takes the new session for a lost one."""
    session = tmp_path / "sales" / "session"
    session.mkdir(parents=True)
    heard = Heard()
    engine = open_engine(session, QUICK, heard)
    await engine.connect()
    claim = (await engine.probe()).claim
    async with asyncio.timeout(60):
        while not claim.paired:
            await asyncio.sleep(0)
            claim = (await engine.probe()).claim
    assert claim.status is not ConnectionStatus.QR_REQUIRED
    await engine.close()
    both = [one for one in heard.claims if one.paired]
    assert all(one.status is not ConnectionStatus.QR_REQUIRED for one in both)
