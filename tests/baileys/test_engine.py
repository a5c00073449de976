"""The task of a whaticket server whose sessions are real Baileys clients."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.backends.whaticket.api import Session, Whaticket
from agent.backends.whaticket.contract import BackendSettings
from agent.backends.whaticket.keys import Shelf
from agent.config.config import BackendDeclaration
from agent.core.crypto_patterns import PATTERNS
from agent.core.words import ConnectionStatus, Happening
from agent.engines.base import Qr
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
from tests.fakes.servers import make_backend, take
from tests.standin.baileys.run import TOKEN

pytestmark = pytest.mark.slow

OTHER_ACCOUNT = "5511900000009"


@dataclass
class Task:
    """The server's task, and what it said of its sessions."""

    session: Session
    folder: Path
    happened: list[Happening] = field(default_factory=list)

    def crypto_errors(self) -> list[Happening]:
        return [it for it in self.happened if it.kind == "crypto_error"]

    async def status(self) -> ConnectionStatus:
        await self.session.look()
        claim = self.session.known.claim()
        assert claim is not None
        return claim.status

    def kept(self, name: str) -> bytes:
        """The newest copy of a removed file."""
        removals = Shelf(self.folder / "removed").all("7")
        found = [it.content for removal in removals for it in removal.records if it.name == name]
        return found[-1]


@pytest.fixture
async def task(bed: Bed) -> AsyncIterator[Task]:
    own = BackendSettings(logs=(f"file:{bed.log}",), auth_folder=str(bed.folder / "{id}"))
    declared = BackendDeclaration("chat", "whaticket", bed.server.url, key=TOKEN, own=own)
    folder, happened = bed.folder.parent / "backend", list[Happening]()
    server = make_backend(declared, folder.parent)
    server.api = api = Whaticket(declared, folder, PATTERNS)
    await take(server, "7", happened=happened.append)
    await api.sessions()
    yield Task(api.held["7"], folder, happened)
    await api.close()


async def code(bed: Bed, task: Task) -> Qr:
    qr = await bed.eventually(task.session.qr, within=60)
    assert isinstance(qr, Qr)
    return qr


@two_sessions
async def test_a_real_session_is_paired_broken_and_repaired_by_the_engine(
    bed: Bed, task: Task
) -> None:
    bed.whatsapp.scan((await code(bed, task)).text, ACCOUNT)
    await bed.settled()
    assert await task.status() is ConnectionStatus.CONNECTED
    await bed.pair(OTHER_ACCOUNT, "8")
    bed.server.send(NEIGHBOUR, "from the other session", "8")

    await bed.talk(NEIGHBOUR, "one")
    await bed.talk(PEER, "one")
    await break_session(bed, PEER)
    assert task.crypto_errors() == []

    bed.whatsapp.answers_retries(PEER, False)
    for number in range(5):
        bed.whatsapp.say(PEER, ACCOUNT, f"lost {number}")
    errors = await bed.eventually(lambda: len(task.crypto_errors()) >= 5 and task.crypto_errors())
    peers = {each.detail["peer"].removesuffix("_1") for each in errors}  # 7.x: of a LID
    assert peers == {address_of(bed, PEER).removesuffix("_1")}

    broken = session_of(bed, PEER)
    before, others = bed.files(), bed.files("8")
    await task.session.new_keys([address_of(bed, PEER)])
    assert bed.server.status() == "CONNECTED"
    assert bed.codes_shown() == 2, "one for each session's pairing"
    removed = set(before) - set(bed.files())
    assert broken.name in removed
    kept = {name: raw for name, raw in before.items() if name not in removed}
    await bed.eventually(lambda: bed.files() == kept)
    assert task.kept(broken.name) == before[broken.name]

    # The session beside it, in the same process, noticed nothing.
    assert bed.files("8") == others
    assert bed.whatsapp.device(OTHER_ACCOUNT)["logins"] == 1

    bed.whatsapp.answers_retries(PEER, True)
    await bed.hear(PEER, "can you read me now?")
    await bed.talk(PEER, "with new keys")
    await bed.hear(NEIGHBOUR, "with the old ones")


@one_package
async def test_a_pairing_given_up_shows_a_new_code_and_is_kept_aside(bed: Bed, task: Task) -> None:
    await bed.pair()
    bed.whatsapp.trouble(ACCOUNT, "conflict", type="device_removed")
    await bed.disconnected(401)
    await bed.eventually(bed.server.status, "DISCONNECTED")
    # Not before: while it runs Baileys truncates the file each time before it writes.
    creds = (bed.auth / "creds.json").read_bytes()
    assert await task.status() is ConnectionStatus.DISCONNECTED

    await task.session.renew(confirmed=True)
    bed.whatsapp.scan((await code(bed, task)).text, ACCOUNT)
    await bed.settled()
    assert await task.status() is ConnectionStatus.CONNECTED
    assert task.kept("creds.json") == creds
