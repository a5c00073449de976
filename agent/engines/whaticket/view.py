"""The memory of a session between two looks, and the claim that follows from the server's word."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from agent.core.words import Claim, ConnectionStatus
from agent.engines.whaticket.rows import Row, claim_of_row
from agent.engines.whaticket.turns import Turn

Status = ConnectionStatus


@dataclass(slots=True)
class SessionView:
    """Times are of one monotonic clock, seconds."""

    prove: bool = True
    """Do not call a connection proved whose end stands in the log."""
    paired: bool = False
    hung_up: bool = False
    """We disconnected it ourselves: that it is down needs no other reason."""
    _status: str = ""
    _since: float = 0.0
    _asked: bool = False
    """The session showed codes since it was last connected."""
    _scanned: bool = False
    """The session went from showing a code straight to connecting."""
    _log_reason: str = ""
    _blocked: bool = False
    """The log says that the session's old browser still runs: no start gets past it."""
    _closed_at: float | None = None
    """When the log had an end of the session and no beginning after it."""
    _disagreed: int = 0
    _code: str = ""
    _code_at: float = 0.0
    _codes: int = 0

    def judge(self, row: Row, files: str, now: float) -> Claim:
        """`files`: what the session's own keys look like (absent, unpaired, paired, damaged)."""
        self._see(row, now)
        claim = claim_of_row(row)
        if row.connected:
            age = 0.0 if self._closed_at is None or not self.prove else now - self._closed_at
            proof = age if claim.status is Status.CONNECTED else None
            return replace(claim, paired=True, proof_age=proof)
        was_paired = self.paired
        if files in ("paired", "unpaired", "absent"):
            self.paired = files == "paired"
        elif files == "unknown":
            self.paired = row.stored or (self.paired and not row.asks)
        claim = replace(claim, paired=self.paired)
        if self._blocked and not row.asks:
            return replace(claim, status=Status.DISCONNECTED, reason="server_browser_stuck")
        if self._log_reason == "logout" and not row.asks:
            # Some of these servers begin again at once, and show OPENING of one that is gone.
            return replace(claim, status=Status.DISCONNECTED, reason="logout", paired=False)
        if claim.status not in (Status.DISCONNECTED, Status.RECONNECTING):
            pairs = claim.status is Status.INITIALIZING and self._scanned and not self.paired
            return replace(claim, phase="pairing") if pairs else claim
        return self._why_down(claim, files, gone=was_paired and files in ("unpaired", "absent"))

    def _why_down(self, claim: Claim, files: str, *, gone: bool) -> Claim:
        if self.hung_up:
            return replace(claim, status=Status.DISCONNECTED, reason="")
        if files == "damaged":
            return replace(claim, status=Status.AUTH_FAILURE, reason="session_damaged")
        if self._log_reason:
            return replace(claim, status=Status.DISCONNECTED, reason=self._log_reason)
        if gone:
            # These servers wipe the keys of a session that WhatsApp logged out, and only those.
            return replace(claim, status=Status.DISCONNECTED, reason="logout")
        if self._asked and not claim.paired:
            return replace(claim, status=Status.QR_REQUIRED, reason="qr_idle")
        return claim

    def _see(self, row: Row, now: float) -> None:
        if row.status != self._status:
            if row.connected:
                # Whatever its log told of before, this connection is a new one.
                self._closed_at, self._log_reason, self._blocked = None, "", False
            comes_from_code = self._status.lower() == "qrcode" or self._scanned
            self._scanned = comes_from_code and not (row.asks or row.down or row.connected)
            self._status, self._since = row.status, now
        if row.connected:
            self.paired, self.hung_up, self._asked = True, False, False
        elif not row.down:
            self.hung_up = False
            self._asked = self._asked or row.asks
            if row.asks:
                # It started again: the earlier end no longer counts.
                self._log_reason, self._blocked = "", False

    def note_turn(self, turn: Turn, now: float) -> None:
        if turn.blocked:
            self._blocked = True
        elif turn.open:
            self._closed_at, self._log_reason, self._blocked = None, "", False
        else:
            # Two lines tell of one end, and one of them may leave the reason open.
            self._closed_at, self._log_reason = now, turn.reason or self._log_reason
            if turn.reason == "logout":
                self.paired = False

    def logged_out(self) -> None:
        self.paired, self.hung_up, self._log_reason = False, False, "logout"

    def code(self, text: str, now: float) -> tuple[int, float]:
        """The how-manieth code this is, and how long we have known it."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest != self._code:
            self._code, self._code_at = digest, now
            self._codes += 1
        return self._codes, now - self._code_at

    def answers(self, row: Row | None, listed: Row | None, now: float) -> dict[str, Any]:
        """The five questions of a health check."""
        disagrees = (listed is None) != (row is None) or (
            row is not None and listed is not None and listed.status != row.status
        )
        # The two are asked one after the other: once is a change, twice is a disagreement.
        self._disagreed = self._disagreed + 1 if disagrees else 0
        detail: dict[str, Any] = {
            "exists": row is not None,
            "listed": listed is not None,
            "list_status": listed.status if listed is not None else "",
            "state_seconds": round(now - self._since, 1) if row is not None else 0.0,
            "qr": "no",
        }
        if row is not None and (row.connected or (self.paired and not row.asks)):
            detail["qr"] = "not_needed"
        elif row is not None and row.asks and row.qrcode:
            detail["qr"] = "yes"
        if self._disagreed >= 2:
            state = row.status if row is not None else "nothing"
            raw = listed.status if listed is not None else "nothing"
            detail["disagrees"] = (
                f"the server's list says {raw}, its answer for the session alone says {state}"
            )
        return detail
