"""The state of one session by the client's events: its claim, its code, its last frame."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agent.core import words
from agent.engines import base, whatsapp
from agent.engines.baileys import peer_keys, rules
from agent.errors import EngineError, WaError

log = logging.getLogger(__name__)

Status = words.ConnectionStatus
WAITING = frozenset({"qr_idle", words.PASSKEY_REQUIRED, words.PASSKEY_SUSPECTED})
"""Reasons of a login that waits for a person."""
MOST_PEERS = 1000
MISSING, FAILING = "parts_missing", "worker_failed"
"""MISSING: Node or the library is not there. FAILING: Node ended too often to start it again."""
REFUSED = frozenset({"session_missing", "session_damaged", "session_foreign", "session_unreadable"})
STORE = REFUSED | {"storage_failed"}

CRYPTO_WORDS = {
    "bad_mac": "Bad MAC",
    "prekey": "Invalid PreKey ID",
    "no_session": "No session record",
    "sender_key": "No SenderKeyRecord found for decryption",
    "behind": "SessionError: Over 2000 messages into the future!",
    "duplicate": "MessageCounterError: Key used already or never filled",
    "undecryptable": "failed to decrypt message",
}
"""Words of the table of patterns for each decryption failure; any other failure is no fault."""
PATTERN_WORDS = {
    **CRYPTO_WORDS,
    "far_future": CRYPTO_WORDS["behind"],
    "session_error": "SessionError",
    "decrypt_failed": CRYPTO_WORDS["undecryptable"],
    "undecryptable": "UndecryptableMessage",
    "no_matching_session": "No matching sessions found for message",
}
"""Finding → a line that the agent reads as that finding, with nothing of the log in it."""


class Ended(NamedTuple):
    reason: str
    raw: str
    until_wall: float | None = None


_FINAL = frozenset({401, 402, 403, 405, 406, 409, 411})
"""Codes after which no login follows, or a late one."""


def why_closed(
    code: int | None,
    raw: str,
    *,
    paired: bool,
    proved: bool = True,
    codes: int = 1,
    expire: float | None,
    now_wall: float,
) -> Ended:
    """`proved`: it refused a login, or says that the device was removed; else the next login tells
    what is so. `codes`: how many this login showed. `expire`: seconds until a ban ends, where
    WhatsApp said so."""
    said = f"{code} {raw}" if code is not None else raw
    if code is None or raw.startswith("WebSocket Error"):
        # Such an error never reached WhatsApp: its number is the library's, or a proxy's.
        return Ended("connection_lost", said)
    if code == 408 and not paired and codes:
        return Ended("qr_idle", said)
    if code in _FINAL and not proved:
        return Ended("conflict" if "(conflict)" in raw else "connection_lost", said)
    until = now_wall + expire if code == 402 and expire else None
    return Ended(whatsapp.WHATSAPP_CODES.get(code, "unknown"), said, until)


def stray_words(event: Mapping[str, Any]) -> str:
    """Words for an error that the library left unhandled; the error's own text may quote a
    message."""
    name, code = str(event.get("name", ""))[:40], str(event.get("code", ""))[:40]
    own = str(event.get("words", ""))[:200]
    return own or f"the library left an error unhandled: {name} {code}"


class State:
    """The claim of a session, for the worker's reporter, with the code that it shows."""

    def __init__(self, reporter: base.Reporter, claim: words.Claim) -> None:
        self.claim = claim
        self._reporter = reporter
        self._code: base.Qr | None = None
        self._code_until = 0.0
        self._codes = 0
        self._frame_at: float | None = None
        """Time of WhatsApp's last frame; None: not known."""

    @property
    def connected(self) -> bool:
        return self.claim.status is Status.CONNECTED

    def code(self) -> base.Qr | None:
        if self._code is None:
            return None
        return replace(self._code, expires_in=max(self._code_until - time.monotonic(), 0.0))

    def frame_age(self) -> float | None:
        """Return seconds since WhatsApp's last frame; None: it proves nothing."""
        if self._frame_at is None or not self.connected:
            return None
        return time.monotonic() - self._frame_at

    def happened(self, kind: str, **detail: Any) -> None:
        self._reporter.happened(words.Happening(kind, detail))

    def change(self, status: words.ConnectionStatus, reason: str = "", **more: Any) -> None:
        """Make a new claim, which the worker hears."""
        rest: dict[str, Any] = {"phase": "", "progress": None, "raw": "", "until_wall": None}
        rest["pairing_unknown"] = False
        self.claim = replace(self.claim, status=status, reason=reason, **(rest | more))
        self._reporter.claim(self.current())

    def current(self) -> words.Claim:
        claim = replace(self.claim, proof_age=self.frame_age())
        # A claim that asks for a code never says paired as well.
        return replace(claim, paired=False) if claim.status is Status.QR_REQUIRED else claim


class SessionState(State):
    """Turns the client's events into claims and happenings."""

    def __init__(self, folder: Path, reporter: base.Reporter) -> None:
        super().__init__(reporter, words.Claim(Status.INITIALIZING, phase="process"))
        self._folder = folder
        self.spoiled = False
        """True if the client's store failed: its memory differs from the disk, so it ends first."""
        self.lost_pre_keys: set[str] = set()
        """Peers that wrote with a one-time pre-key which is no longer held."""

    @property
    def has_connection(self) -> bool:
        """True if the claim says that a connection is there: its end brings another claim."""
        goes_on = self.claim.status in (Status.CONNECTED, Status.LOADING)
        return goes_on or self.is_pairing or self._code is not None

    @property
    def is_pairing(self) -> bool:
        return self.claim.phase == "pairing"

    def begin_login(self) -> None:
        self._codes, self._code = 0, None
        self.change(Status.INITIALIZING, phase="attached", until_wall=None)

    def forget_code(self) -> None:
        self._code = None

    def note_identity(self, answer: Mapping[str, Any]) -> None:
        account = str(answer.get("account", ""))[:40]
        self.claim = replace(self.claim, paired=answer.get("paired") is True, account=account)

    def note_frame(self, age: object) -> None:
        self._frame_at = time.monotonic() - age if isinstance(age, int | float) else None

    def failed(self, error: WaError) -> None:
        reason = error.code if error.code in STORE | {MISSING, FAILING} else "client_crashed"
        status = Status.AUTH_FAILURE if reason in REFUSED else Status.DISCONNECTED
        self.change(status, reason, raw=str(error))

    def hear(self, event: Mapping[str, Any]) -> None:
        handle = getattr(self, f"_on_{event.get('event')}", None)
        if handle is not None:
            handle(event)

    def _on_connecting(self, _event: Mapping[str, Any]) -> None:
        self.change(Status.LOADING if self.claim.paired else Status.INITIALIZING, phase="login")

    def _on_qr(self, event: Mapping[str, Any]) -> None:
        if self.is_pairing:
            return  # the library goes on making codes
        self._codes += 1
        lasts = whatsapp.FIRST_CODE if self._codes == 1 else whatsapp.NEXT_CODE
        self._code = base.Qr(str(event.get("qr", "")), lasts, self._codes)
        self._code_until = time.monotonic() + lasts
        # The phone that was asked for a passkey is still at it; another may scan the new code.
        asked = words.PASSKEY_REQUIRED if self.claim.reason == words.PASSKEY_REQUIRED else ""
        self.change(Status.QR_REQUIRED, asked, phase="login", raw=f"code {self._codes}")

    def _on_passkey(self, _event: Mapping[str, Any]) -> None:
        if not self.claim.paired:
            self.change(Status.QR_REQUIRED, words.PASSKEY_REQUIRED, phase="login")

    def _on_accepted(self, _event: Mapping[str, Any]) -> None:
        """Note that the phone took the code: WhatsApp links the device now, or says no more."""
        if not self.claim.paired:
            self._code = None
            self.change(Status.INITIALIZING, phase="pairing")

    def _on_scanned_again(self, _event: Mapping[str, Any]) -> None:
        text = (
            "a second phone scanned the code, too: the first one is linked, and the second one's"
            " scan was not taken"
        )
        log.warning("%s", text)
        self.happened("scanned_again", text=text)

    def _on_paired(self, event: Mapping[str, Any]) -> None:
        self._code = None
        self.note_identity(event)
        rules.forget_creds(self._folder)
        self.change(Status.LOADING, phase="login")

    def _on_welcomed(self, _event: Mapping[str, Any]) -> None:
        """Note that WhatsApp took the login. Answers about keys may take longer than a login."""
        if self.claim.paired and not self.connected:
            self.change(Status.LOADING, phase="sync")

    def _on_open(self, event: Mapping[str, Any]) -> None:
        self._code = None
        self.note_identity(event)
        self.note_frame(0.0)
        self.claim = replace(self.claim, version=str(event.get("version", "")))
        self.change(Status.CONNECTED)
        rules.note_login(self._folder, self.claim.version)

    def _on_close(self, event: Mapping[str, Any]) -> None:
        self._code = None
        code, expire = event.get("code"), event.get("expire")
        ended = why_closed(
            code if isinstance(code, int) else None,
            str(event.get("raw", "")),
            paired=self.claim.paired,
            proved=event.get("proved") is not False,
            codes=self._codes,
            expire=expire if isinstance(expire, int | float) else None,
            now_wall=time.time(),
        )
        reason = ended.reason
        if reason == "qr_idle" and self.claim.reason == words.PASSKEY_REQUIRED:
            reason = self.claim.reason  # why no scan succeeded
        elif reason == "qr_idle" and self.is_pairing:
            reason = words.PASSKEY_SUSPECTED
        if reason == "logout":
            self.claim = replace(self.claim, paired=False)
        status = Status.QR_REQUIRED if reason in WAITING else Status.DISCONNECTED
        self.change(status, reason, raw=ended.raw, until_wall=ended.until_wall)

    def _on_stray(self, event: Mapping[str, Any]) -> None:
        log.warning("%s", stray_words(event))
        self.happened("error", code="stray")

    def _on_store(self, event: Mapping[str, Any]) -> None:
        self.spoiled = True
        self.failed(EngineError(str(event.get("raw", "")), code=str(event.get("code", ""))))

    def _on_not_kept(self, event: Mapping[str, Any]) -> None:
        """Note messages that were not kept: the client hung up before WhatsApp heard of it, so they
        come again."""
        raw = f"what arrived could not be kept, WhatsApp keeps it: {event.get('raw', '')}"
        self.change(Status.DISCONNECTED, "storage_failed", raw=raw)

    def _on_key_unreadable(self, event: Mapping[str, Any]) -> None:
        text = peer_keys.unreadable_record(str(event.get("file", "")))
        log.warning("%s", text)
        self.happened("key_unreadable", text=text)

    def _on_creds_mended(self, event: Mapping[str, Any]) -> None:
        gone = event.get("gone") is True
        text = f"{rules.CREDS} was gone" if gone else f"{rules.CREDS} could not be read any more"
        text += ": the engine wrote the credentials again with which it is connected"
        if not gone:
            text += f"; what stood there is in {rules.UNREADABLE}"
        log.warning("%s", text)
        self.happened("key_unreadable", text=text)

    def _on_creds_replaced(self, _event: Mapping[str, Any]) -> None:
        text = (
            f"{rules.CREDS} holds other credentials than those with which it is connected: the"
            " engine goes on with its own and writes them there at their next change; to log in"
            f" with the others, stop the session first, and remove {rules.NOTE} beside them"
        )
        log.warning("%s", text)
        self.happened("key_unreadable", text=text)

    def _on_key_refused(self, event: Mapping[str, Any]) -> None:
        why = "that are too large, too many or under names that WhatsApp does not use"
        log.warning("contacts sent %s keys %s: not stored", event.get("count"), why)

    def _on_restricted(self, event: Mapping[str, Any]) -> None:
        if not self.connected:
            return
        until = event.get("until")
        wall = float(until) if isinstance(until, int | float) else None
        reason = "restricted" if event.get("active") is True else ""
        self.change(Status.CONNECTED, reason, until_wall=wall if reason else None)

    def _on_refused(self, event: Mapping[str, Any]) -> None:
        self.happened("error", code=f"refused_{event.get('code')}")
        if event.get("code") == 463 and self.connected:
            self.change(Status.CONNECTED, "restricted", raw="463")

    def _on_message(self, event: Mapping[str, Any]) -> None:
        detail = {key: str(event.get(key, "")) for key in ("direction", "type", "id")}
        self.happened("message", **detail, **_sender(event))

    def _on_readable(self, event: Mapping[str, Any]) -> None:
        """Note a message of the protocol: none for people, but its sender's keys fit."""
        self.happened("read_later", id=str(event.get("id", "")), **_sender(event))

    def _on_ack(self, event: Mapping[str, Any]) -> None:
        self.happened("ack", id=str(event.get("id", "")), ack=str(event.get("ack", "")))
        if event.get("refused") == "463":
            self._on_refused({"code": 463})

    def _on_undecryptable(self, event: Mapping[str, Any]) -> None:
        kind = str(event.get("kind", ""))
        if text := CRYPTO_WORDS.get(kind):
            id, sender = str(event.get("id", "")), _sender(event)
            if kind == "prekey" and len(self.lost_pre_keys) < MOST_PEERS:
                self.lost_pre_keys.add(sender.get("peer", ""))
            if kind != "prekey" and self._is_stranger(event, sender):
                sender["stranger"] = "true"
            self.happened("crypto_error", pattern=kind, text=text, id=id, **sender)

    def _is_stranger(self, event: Mapping[str, Any], sender: Mapping[str, str]) -> bool:
        told = (peer_keys.address_of_jid(str(event.get(key) or "")) for key in ("peer", "alias"))
        addresses = [address for address in told if address]
        return bool(addresses) and peer_keys.is_stranger(
            self._folder, addresses, sender.get("group", "")
        )


def _sender(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the writer, by one name for all devices, and the group, as the agent counts them."""
    told = {key: str(event.get(key) or "") for key in ("peer", "alias", "group")}
    for key in ("peer", "alias"):
        told[key] = peer_keys.address_of_jid(told[key]).rpartition(".")[0] or told[key]
    return {key: name for key, name in told.items() if name}
