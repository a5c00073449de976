"""A session as the server's own list and state show it, and what its words mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent.core.words import PASSKEY_REQUIRED, Claim, ConnectionStatus
from agent.engines.raw import text
from agent.engines.reason_codes import web_reason
from agent.engines.remote.answers import can_be_asked_for
from agent.errors import EngineError

Status = ConnectionStatus


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the server's table of sessions."""

    id: str
    name: str = ""
    status: str = ""
    qrcode: str = field(default="", repr=False)
    """The text of the QR code to scan now: a secret."""
    number: str = ""
    """The phone number it is paired with, where the server keeps it."""
    token: str = field(default="", repr=False)
    """What sends through this session, where each has its own."""
    stored: bool = False
    """The row itself holds a pairing (in its column `session`)."""

    @property
    def connected(self) -> bool:
        return self.status.upper() in ("CONNECTED", "IMPORTING")

    @property
    def down(self) -> bool:
        """Nothing of it runs over there, as the server says."""
        return self.status.upper() in ("DISCONNECTED", "PENDING")

    @property
    def asks(self) -> bool:
        return self.status.lower() == "qrcode"


def parse_row(raw: object) -> Row | None:
    """None when it is no row."""
    if not isinstance(raw, Mapping):
        return None
    id = raw.get("id")
    if isinstance(id, bool) or not isinstance(id, int | str):
        return None
    if not can_be_asked_for(str(id)):
        return None
    return Row(
        id=str(id)[:200],
        name=text(raw.get("name")),
        status=text(raw.get("status"), 60),
        qrcode=text(raw.get("qrcode"), 4000),
        number=text(raw.get("number"), 60),
        token=text(raw.get("token"), 4000),
        stored=bool(raw.get("session")),
    )


def parse_rows(raw: object) -> tuple[list[Row], list[str]] | None:
    """The list route's answer, an array or one under a name: its rows, and what those are called
    that can be no sessions. None when it is no list of sessions."""
    if isinstance(raw, Mapping):
        raw = next((v for k in ("whatsapps", "sessions", "data") if (v := raw.get(k))), None)
    if not isinstance(raw, list):
        return None
    if raw and not any(isinstance(each, Mapping) and "id" in each for each in raw):
        return None
    rows = [(parse_row(each), each) for each in raw]
    odd = [_called(each) for row, each in rows if row is None]
    return [row for row, _ in rows if row is not None], odd


def _called(raw: object) -> str:
    if not isinstance(raw, Mapping):
        return str(raw)[:60]
    return text(raw.get("name"), 60) or str(raw.get("id"))[:60]


def parse_state(raw: object, id: str = "") -> Row | None:
    """The state route's answer: a row, or one under a name. `id`: the session asked for, for
    servers that leave it out of the answer."""
    if not isinstance(raw, Mapping) or "id" in raw:
        return parse_row(raw)
    names = ("whatsapp", "session", "data")
    row = next((inner for name in names if isinstance(inner := raw.get(name), Mapping)), raw)
    if id and "id" not in row and isinstance(row.get("status"), str):
        row = {**row, "id": id}
    return parse_row(row)


_WORDS: Mapping[str, tuple[Status, str, str]] = {
    # No phase: the server tells none, so the general time limit of a start holds.
    "OPENING": (Status.INITIALIZING, "", ""),
    "PAIRING": (Status.INITIALIZING, "", ""),
    "QRCODE": (Status.QR_REQUIRED, "", ""),
    "UNPAIRED": (Status.QR_REQUIRED, "", ""),
    "UNPAIRED_IDLE": (Status.QR_REQUIRED, "qr_idle", ""),
    "PASSKEY_REQUIRED": (Status.QR_REQUIRED, PASSKEY_REQUIRED, ""),
    "CONNECTED": (Status.CONNECTED, "", ""),
    "IMPORTING": (Status.LOADING, "", "sync"),
    "DISCONNECTED": (Status.DISCONNECTED, "connection_closed", ""),
    # Dropped; most of these servers start it again by themselves every two seconds.
    "PENDING": (Status.RECONNECTING, "connection_lost", ""),
}


def claim_of_row(row: Row) -> Claim:
    """What the server's word says, without what else is known of the session."""
    word = row.status.upper()
    other = (Status.DISCONNECTED, web_reason(word), "")
    status, reason, phase = _WORDS.get(word, other)
    return Claim(status, reason, phase, account=row.number, raw=row.status)


def missing_claim() -> Claim:
    return Claim(Status.DISCONNECTED, "remote_missing", raw="not in the server's list")


def no_such_session(name: str) -> EngineError:
    return EngineError(
        f"cannot find {name!r:.60}: the server knows no such session", code="remote_missing"
    )


def id_of(remote: str, rows: Iterable[Row]) -> str:
    """The server's id of the session with this id or name; "" when there is none."""
    rows = list(rows)
    ids = [row.id for row in rows if row.id == remote]
    ids = ids or [row.id for row in rows if row.name == remote]
    if len(ids) > 1:
        raise EngineError(
            f"cannot tell which session is {remote!r:.60}: several have that name",
            code="remote_ambiguous",
        )
    return ids[0] if ids else ""
