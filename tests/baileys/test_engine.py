"""The agent's own engine on a whaticket-like server whose sessions are real Baileys clients."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from agent.engines.whaticket.backend import WhaticketBackend, open_backend
from agent.engines.whaticket.session import WhaticketSession

from agent.core.model import Claim, ConnectionStatus, Happening, InstanceId, ServerClaim
from agent.engines.base import KeepsNothing
from agent.errors import EngineError
from tests.baileys.conftest import (
    ACCOUNT,
    NEIGHBOUR,
    PEER,
    Bed,
    address_of,
    break_session,
    one_package,
    session_of,
    two_sessions,
)
from tests.standin.baileys.run import TOKEN

pytestmark = pytest.mark.slow

OTHER_ACCOUNT = "5511900000009"


class Told(KeepsNothing):
    """All that the engine reported."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.happenings: list[Happening] = []

    def claim(self, claim: Claim) -> None:
        self.claims.append(claim)

    def happened(self, happening: Happening) -> None:
        self.happenings.append(happening)

    def progress(self) -> None: ...

    def server(self, claim: ServerClaim) -> None: ...

    def crashed(self, error: BaseException) -> None:
        raise error

    def crypto_errors(self) -> list[Mapping[str, Any]]:
        return [each.detail for each in self.happenings if each.kind == "crypto_error"]


@pytest.fixture
async def backend(bed: Bed) -> AsyncIterator[WhaticketBackend]:
    settings = {
        "name": "chat",
        "url": bed.server.url,
        "key": TOKEN,
        "logs": [f"file:{bed.log}"],
        "auth_folder": str(bed.folder / "{id}"),
    }
    folder = bed.folder.parent / "backend"
    folder.mkdir()
    backend = open_backend(folder, settings, Told())
    await backend.open()
    yield backend
    await backend.close()


async def status_of(session: WhaticketSession) -> ConnectionStatus:
    return (await session.probe()).claim.status


@two_sessions
async def test_a_real_session_is_paired_broken_and_repaired_by_the_engine(
    bed: Bed, backend: WhaticketBackend
) -> None:
    told = Told()
    session = backend.hold(InstanceId("sales"), {"remote": "7"}, told)
    qr = await bed.eventually(session.qr, within=60)
    bed.whatsapp.scan(qr.text, ACCOUNT)
    await bed.settled()
    assert await status_of(session) is ConnectionStatus.CONNECTED
    await bed.pair(OTHER_ACCOUNT, "8")
    bed.server.send(NEIGHBOUR, "from the other session", "8")

    await session.send({"to": PEER, "text": "one"})
    await bed.eventually(lambda: bed.whatsapp.person(PEER).get("heard"))
    await bed.talk(NEIGHBOUR, "one")
    await bed.talk(PEER, "one")
    await break_session(bed, PEER)
    assert told.crypto_errors() == []

    bed.whatsapp.answers_retries(PEER, False)
    for number in range(5):
        bed.whatsapp.say(PEER, ACCOUNT, f"lost {number}")
    errors = await bed.eventually(lambda: len(told.crypto_errors()) >= 5 and told.crypto_errors())
    assert {each["peer"] for each in errors} == {address_of(bed, PEER)}
    assert {each["text"] for each in errors} == {"Bad MAC"}

    broken = session_of(bed, PEER)
    before, others = bed.files(), bed.files("8")
    await session.regenerate_keys([address_of(bed, PEER)])
    assert bed.server.status() == "CONNECTED"
    assert bed.codes_shown() == 2, "one for each session's pairing"
    removed = set(before) - set(bed.files())
    assert broken.name in removed
    kept = {name: raw for name, raw in before.items() if name not in removed}
    await bed.eventually(lambda: bed.files() == kept)
    shelf = bed.folder.parent / "backend" / "removed" / "7"
    (copy,) = shelf.glob(f"*/files/{broken.name}")
    assert copy.read_bytes() == before[broken.name]

    # The session beside it, in the same process, noticed nothing.
    assert bed.files("8") == others
    assert bed.whatsapp.device(OTHER_ACCOUNT)["logins"] == 1

    bed.whatsapp.answers_retries(PEER, True)
    await bed.hear(PEER, "can you read me now?")
    await bed.talk(PEER, "with new keys")
    await bed.hear(NEIGHBOUR, "with the old ones")


@one_package
async def test_a_pairing_given_up_shows_a_new_code_and_is_kept_aside(
    bed: Bed, backend: WhaticketBackend
) -> None:
    session = backend.hold(InstanceId("sales"), {"remote": "7"}, Told())
    await bed.pair()
    bed.whatsapp.trouble(ACCOUNT, "conflict", type="device_removed")
    await bed.disconnected(401)
    await bed.eventually(bed.server.status, "DISCONNECTED")
    # Not before: while it runs Baileys truncates the file each time before it writes.
    creds = (bed.auth / "creds.json").read_bytes()
    assert await status_of(session) is ConnectionStatus.DISCONNECTED

    await session.renew(confirmed=True)
    qr = await bed.eventually(session.qr, within=60)
    bed.whatsapp.scan(qr.text, ACCOUNT)
    await bed.settled()
    assert await status_of(session) is ConnectionStatus.CONNECTED
    shelf = bed.folder.parent / "backend" / "removed" / "7"
    (copy,) = shelf.glob("*/files/creds.json")
    assert copy.read_bytes() == creds


@one_package
async def test_a_session_with_cut_short_creds_is_not_started_over(
    bed: Bed, backend: WhaticketBackend
) -> None:
    session = backend.hold(InstanceId("sales"), {"remote": "7"}, Told())
    await bed.pair()
    await bed.talk(PEER, "one")
    creds = bed.auth / "creds.json"
    whole = creds.read_bytes()
    creds.write_bytes(whole[:100])
    with pytest.raises(EngineError) as refused:
        await session.regenerate_keys([address_of(bed, PEER)])
    assert refused.value.code == "session_damaged"
    assert creds.read_bytes() == whole[:100], "the client had made a new pairing of it"

    creds.write_bytes(whole)
    await session.connect()
    await bed.connected()
    assert bed.codes_shown() == 1
    await bed.talk(PEER, "with new keys")
