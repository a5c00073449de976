"""Passes an engine's words about its session on: to the agent, to the log, to STATUS=."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent.clock import boot_now
from agent.core.words import SUSPECT, UNPAIRING, Claim, ConnectionStatus, Happening, InstanceId
from agent.engines.base import Keeper, KeepsNothing
from agent.link.server import LinkServer

log = logging.getLogger(__name__)
Crashed = Callable[[BaseException], None]


# A worker never starts a paired session over: no code, no new store. An empty store under a pairing
# is a lost one; an operator could scan a code shown in its place before the loss is known. The
# agent decides what happens to it.


class Pairing:
    """Tracks if one session is paired, by its record and its engine's claims."""

    __slots__ = ("_paired", "suspect")

    def __init__(self, paired: bool) -> None:
        self._paired = paired
        self.suspect = False
        """True if the session is unpaired without a logout: a scan would replace a pairing."""

    def judge(self, claim: Claim) -> Claim:
        """Return the claim for the agent: a code where a pairing should be becomes AUTH_FAILURE."""
        if claim.reason in UNPAIRING:
            self._paired = False
        elif claim.paired:
            self._paired = True
        self.suspect = self._paired and claim.status is ConnectionStatus.QR_REQUIRED
        if not self.suspect:
            return claim
        return replace(claim, status=ConnectionStatus.AUTH_FAILURE, reason=SUSPECT, phase="")


class Reports:
    """One session's Reporter; keeps the newest claim and lets its proof grow old."""

    def __init__(
        self, id: InstanceId, changed: asyncio.Event, crashed: Crashed, pairing: Pairing
    ) -> None:
        """Make the reports. `changed` is set when STATUS= may have to be another."""
        self.server: LinkServer | None = None
        """The link's server, which tells the agent."""
        self.pairing = pairing
        self.progressed_at = 0.0
        """Boot time of the last step of a save; 0 = none."""
        self.changed = changed
        self.crashed = crashed
        self.instead: Claim | None = None
        """The claim in place of the engine's; None: the engine's."""
        self.keeper: Keeper = KeepsNothing()
        """The keeper of what arrives."""
        self._id = id
        self._claim = Claim(ConnectionStatus.INITIALIZING, phase="process")
        self._at = self._moved_at = boot_now()

    def claim(self, claim: Claim) -> None:
        before, claim = self._claim, self.renew(claim)
        if (before.status, before.reason) != (claim.status, claim.reason):
            level = logging.WARNING if claim.reason else logging.INFO
            words = _words(before), _words(claim)
            log.log(level, "%s -> %s", *words, extra={"wa_instance": self._id})
        if self.server is not None:
            self.server.claim(claim)

    def renew(self, claim: Claim) -> Claim:
        """Take what a probe found as the newest claim, without telling it; the claim to send."""
        claim = self.instead or self.pairing.judge(claim)
        before, self._at = self._claim, boot_now()
        progressed = (claim.progress or 0.0) > (before.progress or 0.0)
        if progressed or (before.status, before.phase) != (claim.status, claim.phase):
            self._moved_at = self._at
        self._claim = replace(claim, still_for=self._at - self._moved_at)
        self.changed.set()
        return self._claim

    def happened(self, happening: Happening) -> None:
        if self.server is not None:
            self.server.happened(happening)

    @property
    def keeps(self) -> bool:
        return self.keeper.keeps

    async def keep(self, records: Sequence[Mapping[str, object]]) -> None:
        await self.keeper.keep(records)

    def progress(self) -> None:
        self.progressed_at = boot_now()

    def current(self) -> Claim:
        """Return the newest claim as it stands now: its proof is older than when it was made."""
        claim, passed = self._claim, boot_now() - self._at
        proof_age = None if claim.proof_age is None else claim.proof_age + passed
        return replace(claim, proof_age=proof_age, still_for=claim.still_for + passed)

    def repeat(self) -> None:
        """Tell the newest claim again: the agent asks then if it took the session for well."""
        if self.server is not None:
            self.server.claim(self.current())

    def status_text(self) -> str:
        claim = self._claim
        return _words(claim) + ("" if claim.progress is None else f" {claim.progress:.0%}")


def _words(claim: Claim) -> str:
    return f"{claim.status} ({claim.reason})" if claim.reason else str(claim.status)
