"""One instance on the stand-in: its live state, its row in the database, its codes to scan."""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CODE_NUMBERS = itertools.count(1)
SETTINGS = {
    "rejectCall": False,
    "msgCall": "",
    "groupsIgnore": False,
    "alwaysOnline": False,
    "readMessages": False,
    "readStatus": False,
    "syncFullHistory": False,
}


def now_text() -> str:
    moment = time.time()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return f"{whole}.{int(moment % 1 * 1000):03}Z"


@dataclass(frozen=True)
class Times:
    """Seconds. The defaults are the server's own."""

    connect_wait: float = 2.0
    create_wait: float = 5.0
    opens_after: float = 0.8
    first_code: float = 1.0
    code_holds: float = 45.0
    codes: int = 30
    silent_try: float = 30.0
    """One try to connect to a WhatsApp that does not answer; 1.8 takes 20 s."""
    again: float = 0.0
    """In `close`, between two tries of the server."""
    login: float = 0.0
    """In `close`, from a request to connect to the try that it began."""
    handshake: float = 0.3
    """Seconds of a login, from its beginning; a write in them breaks it."""
    removal: float = 0.1

    @classmethod
    def fast(cls, **more: Any) -> "Times":
        quick: dict[str, Any] = {
            "connect_wait": 0.02,
            "create_wait": 0.05,
            "opens_after": 0.05,
            "first_code": 0.05,
            "silent_try": 0.3,
            "handshake": 0.03,
            "removal": 0.03,
        }
        return cls(**{**quick, **more})


@dataclass
class Row:
    """The database's row: what the list shows in 2.x."""

    connectionStatus: str = "close"
    ownerJid: str | None = None
    disconnectionReasonCode: int | None = None
    disconnectionObject: str | None = None
    disconnectionAt: str | None = None
    createdAt: str = field(default_factory=now_text)
    updatedAt: str = field(default_factory=now_text)

    def set(self, **changes: Any) -> None:
        for key, value in changes.items():
            setattr(self, key, value)
        self.updatedAt = now_text()


class Instance:
    """`state` is None where the process does not hold it."""

    def __init__(self, name: str, times: Times, version: str) -> None:
        self.name = name
        self.id = str(uuid.uuid4())
        self.token = str(uuid.uuid4()).upper()
        self.number: str | None = None
        self.integration = "WHATSAPP-BAILEYS"
        self.row = Row()
        self.state: str | None = "close"
        self.creds = False
        self.settings: dict[str, Any] = dict(SETTINGS)
        self.wavoip = ""
        self.webhook: dict[str, Any] | None = None
        self.proxy: dict[str, Any] | None = None
        self.count = 0
        self.code = ""
        """The code that a phone can scan now."""
        self.qrcode = ""
        """The code that the process shows: it keeps the last one through pairing, logout and
        silence."""
        self.pairing_code: str | None = None
        self.ghost = False
        """1.8: it was deleted while it connected, and its connection goes on without it."""
        self.storms = False
        """Two connections of one session replace each other for ever."""
        self.second_logins = 0
        """Logins that a request began while the server was about to try by itself."""
        self.logins = 0
        self.broken_logins = 0
        """Logins that a request broke: the server wrote its words into the handshake."""
        self.stuck = False
        """WhatsApp is silent: each try ends after its time, and the next begins."""
        self.dead = ""
        """Open, and WhatsApp does not answer: "silent" or "closed"."""
        self.denied = 0
        """Number of looks at its state that are answered as if there were no such instance."""
        self._times = times
        self._version = version
        self._phone: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tries = False
        """It is in `close`, and the server is about to connect it."""
        self._handshake_until = 0.0

    @property
    def old(self) -> bool:
        return self._version.startswith("1.")

    @property
    def wuid(self) -> str:
        number = self.number or f"5511{int(self.id[:8], 16) % 10**9:09}"
        return f"{number}@s.whatsapp.net"

    # what the API does

    def connect(self, phone: str | None = None) -> None:
        """Begin to connect. The code shown before stays until there is a new one."""
        self._phone = phone
        self.code = ""
        self._connecting()

    def asked_to_connect(self, phone: str | None) -> None:
        """By GET connect, in `close`: the server looks at nothing but that."""
        if self._tries:
            self.second_logins += 1
            return
        self._phone, self.code, self._tries = phone, "", True
        self._after(self._times.login, self._connecting)

    def restart(self) -> None:
        if self.old and self.state == "open":
            # The connection that there is goes on beside the new one: each replaces the other.
            self.storms, self.count, self.qrcode = True, 0, ""
        self.connect(self._phone)

    def scan(self) -> bool:
        """A phone scans the code that is shown."""
        if self.state != "connecting" or not self.code:
            return False
        self.creds, self.code, self.pairing_code = True, "", None
        self._after(self._times.opens_after, self._open)
        return True

    def logout(self) -> None:
        # A paired one says so to WhatsApp first. While its connection is down that fails, and it
        # stays as it is; into one that only does not answer the words are written, and it ends.
        if self.dead != "closed" and not (self.creds and self.state == "connecting"):
            self.end(401)

    def write(self) -> None:
        """The server writes into its socket for a request; in a handshake that breaks the login."""
        now = asyncio.get_running_loop().time()
        if self.state == "connecting" and not self.stuck and now < self._handshake_until:
            self.broken_logins += 1
            self._try_again()

    def silence(self, on: bool) -> None:
        """WhatsApp stops to answer, or answers again; what is open notices after a while."""
        self.stuck = on
        if self.state == "open":
            self.dead = "silent" if on else ""
            self._after(self._times.silent_try, self._notice) if on else self._stop()

    def _notice(self) -> None:
        self.dead = ""
        self.drop(408)

    def end(self, code: int) -> None:
        """A close after which the server does not come back: the keys are deleted."""
        self._stop()
        self.creds, self.state, self.code, self.storms = False, "close", "", False
        self.dead, self._tries = "", False
        if not self.old:
            final = {"statusCode": code, "payload": {"message": "Connection Failure"}}
            what = {"error": {"isBoom": True, "output": final}, "date": now_text()}
            self.row.set(
                connectionStatus="close",
                disconnectionAt=now_text(),
                disconnectionReasonCode=code,
                disconnectionObject=json.dumps(what),
            )

    def drop(self, code: int) -> None:
        """A close after which the server connects again by itself, without saying so in 2.x."""
        finals = (401,) if self.old else (401, 402, 403, 406)
        if code in finals or (self._version.startswith("2.4") and code == 408):
            self.end(code)
            return
        self._try_again()

    def _try_again(self) -> None:
        self._stop()
        self.state, self._tries = "close", True
        self._after(self._times.again, self._connecting)

    def unload(self) -> None:
        """The process ended."""
        self._stop()
        self.state, self.code, self.qrcode, self.count = None, "", "", 0
        self.storms, self.second_logins, self._tries = False, 0, False

    def load(self, *, connects: bool) -> None:
        self.state = "close"
        if connects:
            self.connect()

    def shown(self) -> dict[str, Any]:
        """The QR object, however old its code is; before the first code it is a count alone."""
        if not self.qrcode:
            return {"count": self.count}
        image = "data:image/png;base64,iVBORw0KGgo="
        return {
            "pairingCode": self.pairing_code,
            "code": self.qrcode,
            "base64": image,
            "count": self.count,
        }

    # how it goes

    def _connecting(self) -> None:
        self._stop()
        self.state, self._tries = "connecting", False
        self.logins += 1
        self._handshake_until = asyncio.get_running_loop().time() + self._times.handshake
        if self.stuck:
            self._after(self._times.silent_try, self._try_again)
        elif self.creds:
            self._after(self._times.opens_after, self._open)
        else:
            self._after(self._times.first_code, self._next_code)

    def _open(self) -> None:
        self._stop()
        self.state, self.code = "open", ""
        self.row.set(connectionStatus="open", ownerJid=self.wuid)
        if self.storms or self.second_logins:
            self.storms = True
            self._after(self._times.opens_after, self._connecting)

    def _next_code(self) -> None:
        if self.stuck:
            self.code = ""
            self._try_again()
            return
        if self.count == self._times.codes:
            self._codes_used_up()
            return
        self.count += 1
        self.code = f"2@{uuid.uuid4().hex}{next(CODE_NUMBERS)},{uuid.uuid4().hex},key"
        self.qrcode = self.code
        self.pairing_code = "ABCD1234" if self._phone else None
        self.row.set(connectionStatus="connecting")
        self._after(self._times.code_holds, self._next_code)

    def _codes_used_up(self) -> None:
        self._stop()
        # The row keeps "connecting": the server writes it no more.
        self.state, self.code, self.qrcode, self.count = "close", "", "", 0

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
