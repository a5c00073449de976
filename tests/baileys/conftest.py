"""Real Baileys clients against the stand-in for WhatsApp, in real processes."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.lacking import not_lent
from tests.standin.baileys.run import PACKAGES, BaileysServer, WhatsApp, why_not
from tests.standin.baileys.shared import shared_whatsapp
from tests.waiting import GrowingLog

ACCOUNT = "5511900000001"
PEER = "5511900000002"
NEIGHBOUR = "5511900000003"
OWN_PHONE = {f"session-{ACCOUNT}.0.json", f"session-1{ACCOUNT}_1.0.json"}
"""The record of the keys with the account's own phone, in 6.x and 7.x."""


@dataclass
class Bed:
    """One session, "sales" with the id 7, of one account; and everybody it writes with."""

    package: str
    whatsapp: WhatsApp
    folder: Path
    log: Path
    server: BaileysServer
    eventually: Eventually

    @property
    def auth(self) -> Path:
        return self.folder / "7"

    async def pair(self, account: str = ACCOUNT, id: str = "7") -> None:
        self.whatsapp.scan(await self.eventually(lambda: self.server.qr(id), within=60), account)
        await self.settled(id)

    async def settled(self, id: str = "7") -> None:
        """Connected, and what the phone gives to a new device is saved: until then files change."""
        await self.connected(id)
        last = "accountSyncCounter" if self.package == "baileys" else "myAppStateKeyId"
        await self.eventually(lambda: last in self._creds(id), within=60)

    def _creds(self, id: str) -> dict[str, Any]:
        """{} at the instants when Baileys has emptied the file and not yet written it."""
        raw = (self.folder / id / "creds.json").read_bytes()
        try:
            return dict(json.loads(raw))
        except ValueError:
            return {}

    async def connected(self, id: str = "7") -> None:
        await self.eventually(lambda: self.server.status(id), "CONNECTED", within=60)

    async def disconnected(self, code: int) -> None:
        """The client was told so by the library, with that status code."""
        line = f'--> {{"session":"sales","statusCode":{code}}}\n'
        await self.eventually(lambda: line in self.log.read_text(), within=60)

    async def hear(self, sender: str, text: str) -> None:
        """A contact writes to the account, and its client can read it."""
        id = self.whatsapp.say(sender, ACCOUNT, text)
        await self.eventually(lambda: is_read(self.whatsapp.receipts(ACCOUNT, id)), within=60)

    async def send(self, to: str, text: str) -> str:
        """The account's client writes, and the other can read it; the message's kind."""
        self.server.send(to, text)
        return str(await self.eventually(lambda: self.heard(to, text), within=60))

    def heard(self, who: str, text: str) -> str:
        """The kind of the message with this text, once they have it."""
        heard = self.whatsapp.person(who).get("heard", [])
        return next((each["type"] for each in heard if each["text"] == text), "")

    async def talk(self, who: str, text: str) -> None:
        """Both ways, so that the keys move on."""
        await self.send(who, f"{text}?")
        await self.hear(who, f"{text}!")

    def files(self, id: str = "7") -> dict[str, bytes]:
        """As they are at an instant at which Baileys has emptied none to write it, less OWN_PHONE:
        the client asks it some seconds after a message that could not be read."""
        while True:
            with suppress(FileNotFoundError):
                names = {each.name for each in (self.folder / id).iterdir()} - OWN_PHONE
                found = {name: (self.folder / id / name).read_bytes() for name in names}
                if all(found.values()):
                    return found
            time.sleep(0.01)

    def codes_shown(self) -> int:
        return self.log.read_text().count("Session QRCode Generate")


def is_read(receipts: list[str]) -> bool:
    """ "inactive" is the receipt of a client whose screen is off."""
    return bool({"delivered", "inactive"} & set(receipts))


def session_of(bed: Bed, who: str) -> Path:
    """The file of the keys with one person; 7.x names it after the LID."""
    return bed.auth / f"session-{address_of(bed, who)}.0.json"


def address_of(bed: Bed, who: str) -> str:
    return f"1{who}_1" if bed.package == "baileys" else who


async def break_session(bed: Bed, who: str) -> None:
    """The file of the keys with one person comes from an old copy, as after a bad restore."""
    bed.server.disconnect()
    old = session_of(bed, who).read_bytes()
    bed.server.start_session()
    await bed.connected()
    await bed.talk(who, "two")
    await bed.talk(who, "three")
    bed.server.disconnect()
    session_of(bed, who).write_bytes(old)
    bed.server.start_session()
    await bed.connected()


NEWEST = "the newest that runs here"
one_package = pytest.mark.parametrize("package", [NEWEST], indirect=True)
"""For what one version is enough."""
two_sessions = pytest.mark.parametrize("sessions", [{"7": "sales", "8": "support"}])


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    wanted = PACKAGES if request.param == NEWEST else (str(request.param),)
    reasons = {name: why_not(name) for name in wanted}
    for name, reason in reasons.items():
        if not reason:
            return name
    return not_lent("; ".join(dict.fromkeys(reasons.values())))


@pytest.fixture
def sessions() -> dict[str, str]:
    return {"7": "sales"}


@pytest.fixture
def whatsapp(
    package: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> WhatsApp:
    return shared_whatsapp(request, tmp_path_factory)


@pytest.fixture
def bed(
    package: str,
    sessions: dict[str, str],
    whatsapp: WhatsApp,
    tmp_path: Path,
    eventually: Eventually,
) -> Iterator[Bed]:
    folder, log = tmp_path / "auth", GrowingLog(tmp_path / "server.log")
    server = BaileysServer(whatsapp, folder, log, package, sessions)
    yield Bed(package, whatsapp, folder, log, server, eventually)
    server.end()
