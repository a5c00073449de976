"""A repair as a value: its goal, and how far it has come. The store keeps it, so a repair outlives
the agent that began it."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from agent.core.words import SessionFiles

# Grounds to end a pairing, and consents of a person. recovery/pairing.py decides by them.


class Consent(StrEnum):
    """A person's word for a repair or an order, from the least to the most."""

    NONE = ""
    PAIRING = "pairing"
    """The pairing may end."""
    PASSKEY = "passkey"
    """The pairing may end though the account needs a passkey to link again."""


class Ground(StrEnum):
    """Why a pairing may end."""

    NO_PAIRING = "no_pairing"
    ENDED = "ended"
    """WhatsApp ended it, or an earlier step of the same repair."""
    PERSON = "person"
    """A person confirmed it."""
    FAILS_ALONE = "fails_alone"
    """WhatsApp is reached, others are connected, and every milder step was in vain."""
    DAMAGED_FILES = "damaged_files"
    """The files cannot be read, and no copy of them can be put back."""
    LOST_STORE = "lost_store"
    """The session came up unpaired, and no try over a whole store brought it back."""
    SAME_PAIRING = "same_pairing"
    """A good copy of this very pairing takes the place of its files."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that a pairing may end; only recovery/pairing.py makes one."""

    ground: Ground

    def stands(self, files: SessionFiles) -> bool:
        """True if the proof still holds for `files`, found once the worker has stopped."""
        unproved = files in (SessionFiles.WHOLE, SessionFiles.UNREADABLE)
        return self.ground is not Ground.DAMAGED_FILES or not unproved


@dataclass(frozen=True, slots=True)
class Kept:
    code: str
    why: str
    """A sentence without its full stop."""
    todo: str
    """A sentence with the command that a person may type."""
    unknown: bool = False
    """True if there may be no pairing: neither the record nor the engine knows."""

    @property
    def sentence(self) -> str:
        kept = "the pairing is kept"
        if self.unknown:
            kept = "it may have a pairing, so nothing is tried that could end it"
        return f"{self.why}; {kept}. {self.todo}"


class Goal(StrEnum):
    """Why a repair runs, from the least to the most that it may do."""

    HEAL = "heal"
    """The agent's own repair: several rounds, a live pairing given up last if at all."""
    RECOVER = "recover"
    """A request: one round of the steps that keep the pairing."""
    WORKING_QR = "working_qr"
    """A request: one round, down to a new pairing."""
    CLEANUP = "cleanup"
    """A request: a clean-up at once."""


class Trouble(StrEnum):
    CONNECTION = "connection"
    KEYS = "keys"
    FILES = "files"
    SUSPECT = "suspect"


class RecoveryKind(StrEnum):
    """RESTART and each harsher step ends with a new worker. RESTORE, LOGOUT_RESTART and CLEANUP
    also forgive the record (reconnect.forgive), the last two with `paired` false. Each can be
    repeated.
    """

    NONE = "none"
    WAIT = "wait"
    RECONNECT = "reconnect"
    RESTART = "restart"
    REGENERATE_KEYS = "regenerate_keys"
    BACK_UP = "back_up"
    RESTORE = "restore"
    LOGOUT_RESTART = "logout_restart"
    CLEANUP = "cleanup"


class Stage(StrEnum):
    DUE = "due"
    """The next try comes at `not_before_wall`."""
    ACTING = "acting"
    """A step was begun and has not reported."""
    SETTLING = "settling"
    """A step was done; its effect must show."""


class Ending(StrEnum):
    NOT_YET = ""
    RECOVERED = "recovered"
    NO_STEP = "no_step"
    """No step was tried: the session got well by itself, or nothing that is wrong has a cure."""
    CLEANED = "cleaned"
    NEEDS_PERSON = "needs_person"
    GAVE_UP = "gave_up"
    NOT_WANTED = "not_wanted"


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair of one instance: what it is for and how far it has come."""

    trouble: Trouble
    reason: str
    """Reason of the verdict that began the repair."""
    goal: Goal
    started_wall: float
    consent: Consent = Consent.NONE
    """The word of the person who asked for the repair."""
    step: RecoveryKind = RecoveryKind.NONE
    tries: int = 0
    """Tries of `step` so far, the one under way included."""
    done: bool = False
    """True if the last try of `step` was carried out, with or without an effect."""
    round: int = 1
    calm: bool = True
    """True if all through this round the cause could only be the session's own (is_calm)."""
    stage: Stage = Stage.DUE
    not_before_wall: float = 0.0
    stage_wall: float = 0.0
    """Unix time at which the present stage began."""
    backup: str = ""
    """Name of the confirmed backup of before this round's first destructive step."""
    backup_tries: int = 0
    cleaned: bool = False
    unpaired: bool = False
    """True if a step of this repair ended the pairing: it goes on until a code is shown."""
    nothing_tried: bool = False
    """True if the last round had no step to try: one that comes up since waits for no pause."""
    regenerated: bool = False
    """True if new keys were tried in this round."""
    acts: int = 0
    resumed: int = 0
    ending: Ending = Ending.NOT_YET
    ended_wall: float = 0.0
    outlived: bool = False
    """True if the repair ended waiting for a person, and the session has been well since."""

    @property
    def over(self) -> bool:
        return self.ending is not Ending.NOT_YET

    @property
    def seconds(self) -> float:
        """From its begin until it had healed. Keys count as healed when no error came for a while
        after the last step: that while is no part of it."""
        proved_later = self.trouble is Trouble.KEYS and self.done and self.answer["healthy"]
        return max((self.stage_wall if proved_later else self.ended_wall) - self.started_wall, 0.0)

    @property
    def answer(self) -> dict[str, bool]:
        """The answer of ensure_healthy once the repair is over; of one without a step the verdict
        says whether the session is healthy."""
        good = self.ending in (Ending.RECOVERED, Ending.CLEANED)
        recovered = self.ending is Ending.RECOVERED
        return {"healthy": good, "cleaned": self.cleaned or self.unpaired, "recovered": recovered}

    @property
    def where(self) -> str:
        if self.step is RecoveryKind.NONE:
            return f"round {self.round}"
        return f"{self.step}, try {self.tries}, round {self.round}"

    # Each of these gives the repair as it is then.

    def join(self, goal: Goal, consent: Consent = Consent.NONE) -> "Repair":
        """Let a second request join the repair; it may widen what the repair may do."""
        wider = max(self.goal, goal, key=list(Goal).index)
        if not self.cleaned:  # else the earlier word was for what is cleaned up by now
            consent = max(self.consent, consent, key=list(Consent).index)
        # The caller waits for the answer: a delayed step is due now.
        at_once = goal is not Goal.HEAL and self.stage is Stage.DUE
        due_wall = 0.0 if at_once else self.not_before_wall
        return replace(self, goal=wider, consent=consent, resumed=0, not_before_wall=due_wall)

    def lapse(self) -> "Repair":
        """Drop a person's order, which holds for now only: later the agent goes on as by itself."""
        return replace(self, goal=Goal.HEAL, consent=Consent.NONE)

    def hurry(self, *, paired: bool) -> "Repair":
        """The session has its turn in an incident, or that is over: the next try is due now. A step
        that failed while others failed alike proves nothing, so the round begins again; without a
        pairing the repair goes on to the step that makes a new session."""
        if self.stage is not Stage.DUE:
            return self
        due, harmless = replace(self, not_before_wall=0.0), self.step in _HARMLESS
        own = not paired or self.trouble is not Trouble.CONNECTION or not harmless
        return due if own else due.from_the_top()

    def resume(self, now_wall: float) -> "Repair":
        """After the agent's own restart a step under way is done again, but not for ever. A
        person's word that waited for its step has lapsed; step_repair drops one whose step was
        under way where the session is paired."""
        if self.stage is not Stage.ACTING:
            waited = self.consent is not Consent.NONE and not self.unpaired
            return self.lapse() if waited and not self.over else self
        again = self.resumed < 3
        new_keys = self.step is RecoveryKind.REGENERATE_KEYS
        tries = max(self.tries - 1, 0) if again else self.tries
        regenerated = self.regenerated and not (again and new_keys)
        due = replace(self.delay(now_wall, 0.0), tries=tries, regenerated=regenerated)
        return replace(due, resumed=self.resumed + 1)

    def outlive(self, *, healthy: bool) -> "Repair":
        """Note a healthy session after a repair that needed a person: a later failure is new."""
        ended = self.ending is Ending.NEEDS_PERSON
        return replace(self, outlived=self.outlived or (ended and healthy))

    def from_the_top(self, **changes: Any) -> "Repair":
        """Let the next step be the mildest again."""
        return replace(self, step=RecoveryKind.NONE, tries=0, done=False, **changes)

    def delay(self, now_wall: float, wait: float) -> "Repair":
        return replace(self, stage=Stage.DUE, stage_wall=now_wall, not_before_wall=now_wall + wait)

    def begin_step(self, now_wall: float) -> "Repair":
        return replace(self, stage=Stage.ACTING, stage_wall=now_wall, acts=self.acts + 1)


_HARMLESS = (RecoveryKind.RECONNECT, RecoveryKind.RESTART)
