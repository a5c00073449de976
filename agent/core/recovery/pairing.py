"""Decides if an act may end a pairing: by a proof or by a person's word. Each plan that removes,
replaces, renews or logs out what may be a pairing has its proof from here."""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.core.model import ConnectionStatus, Health, HealthVerdict, SessionFiles
from agent.core.reasons import reason_of
from agent.core.recovery.repair import Consent, Goal, Ground, Kept, Proof, Repair, Trouble
from agent.core.session import Session
from agent.core.setting import setting

WHATSAPP_AWAY = "whatsapp_away"
"""The code of an answer: WhatsApp is not reached, so no step of a repair can help."""
PAIRING_KEPT = "pairing_kept"
CONFIRM_PASSKEY = "confirm_passkey"
"""A refusal's code, and the field that answers it."""
WOULD_UNPAIR = "would_unpair"


# The [recovery] table, and bounds that nothing sets.


class Unpair(StrEnum):
    NEVER = "never"
    LAST = "last"
    EARLY = "early"


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    tries: int = setting(3, "tries of each step of a repair", low=1, high=20)
    first_delay: float = setting(
        2.0, "seconds between the first two tries of a step; doubles with each try", low=0.1
    )
    rounds: int = setting(
        3, "rounds through the steps of a repair before it may give up a pairing", low=1
    )
    round_pause: float = 1800.0
    """Seconds between two rounds of a repair."""
    unpaired_pause: float = 30.0
    """Seconds between the first two rounds of a session without a pairing; doubles each time, up to
    round_pause."""
    unpair: Unpair = setting(
        Unpair.LAST,
        "when a repair may end a live pairing: never, after the last round, in the first round;"
        " a session that hangs loses its pairing only while another session of the same engine,"
        " server and proxy is connected",
        choices=tuple(Unpair),
    )
    settle: float = setting(
        45.0, "seconds for a step on a running worker to show its effect", low=0.1
    )
    settle_start: float = 5.0
    """Seconds for a step that started a worker to show its effect."""
    settle_keys: float = 120.0
    """Seconds without crypto errors after which keys count as healed."""
    suspect_settle: float = 300.0
    """Seconds for a session that came up unpaired without a logout, or for its files, to come back
    before a person is asked."""
    again: float = 21600.0
    """Seconds after which a repair that gave up starts again; 0 = never."""
    keys_again: float = 600.0
    """Seconds after which a repair of failing keys starts again: `round` of [crypto]."""
    start_limit: float = 1800.0
    """The longest that a start may take to show whether a step helped."""
    act_limit: float = 180.0
    """A step that has not reported by then counts as failed."""

    def delay_after(self, tries: int) -> float:
        return self.first_delay * 2.0 ** min(max(tries - 1, 0), 16)


@dataclass(frozen=True, slots=True)
class Case:
    """All that a decision about a repair is made from: the session, and what is around it."""

    session: Session
    verdict: HealthVerdict
    policy: RecoveryPolicy
    now_wall: float
    well: bool = True
    """True if backend and network are well, and the engine is in no incident."""
    odd_one_out: bool = True
    """No other instance of its engine fails alike, nor of those with its proxy
    (gate.Incidents.odd_one_out)."""
    another_connected: bool = True
    """True if another instance of the engine is connected: on the same backend, and by the same
    proxy or none."""
    canary: bool = False
    """True if the session is the canary of an incident: it tries for the others, gently as ever."""
    can_log_out: bool = False
    """True if the engine can log out and start again (remote ones)."""
    good_snapshot: bool = False
    copied: bool = False
    """True if another machine of the fleet has a copy of the session's newest files."""
    may_roll_back: bool = False
    """True if a session survives going back in time (a browser profile, not key files)."""
    peers: tuple[str, ...] = ()
    finds_records: bool = False
    """True if the engine finds damaged records by reading them, where no peer is named."""
    reads: bool = False
    """True if the session read messages since its keys began to fail, or the engine tells none."""


def may_end_pairing(session: Session, consent: Consent, found: Proof | Kept) -> Proof | Kept:
    """A proof if an act may end the session's pairing. `consent`: a person's word for this act;
    `found`: what the facts prove without a person."""
    if session.is_guarded and consent is not Consent.PASSKEY:
        why = "its account needs a passkey to link again, so its pairing can be lost for good"
        todo = "A request that ends it must have `confirm_passkey` with the instance's id"
        return Kept(CONFIRM_PASSKEY, why, todo)
    if session.is_other_account:  # a word for the pairing that was here is none for that one
        other = reason_of("other_account")
        return Kept(other.code, other.title, other.advice_for(session.id))
    if consent is not Consent.NONE:
        return Proof(Ground.PERSON)
    if session.no_pairing_to_lose:
        return Proof(Ground.ENDED if session.last_reason.unpairs else Ground.NO_PAIRING)
    return found


def may_repair_end_it(case: Case, repair: Repair) -> Proof | Kept:
    """Return a proof if a step of this repair may end the pairing now."""
    answer = may_end_pairing(case.session, repair.consent, _kept_or_proved(case, repair))
    record, claim = case.session.record, case.session.claim
    unknown = claim is not None and claim.claim.pairing_unknown and not record.paired
    return replace(answer, unknown=unknown) if isinstance(answer, Kept) else answer


PUT_BACK = Proof(Ground.SAME_PAIRING)
"""The proof of a restore by a repair: the vault refuses a copy of any other pairing
(vault.restore.refuse_roll_back), and the trash keeps what it replaces."""


def may_person_end_it(session: Session, consent: Consent) -> Proof | Kept:
    """Return a proof if an order may end the pairing: with a person's word only."""
    unconfirmed = Kept(WOULD_UNPAIR, "it would end a pairing", "Confirm it")
    return may_end_pairing(session, consent, unconfirmed)


def is_calm(case: Case) -> bool:
    """True if the cause can only be the session's own. The agent looks at WhatsApp's address for
    its own sessions; where one on a backend hangs, only another one there that is connected shows
    that the server reaches WhatsApp."""
    seen = _others_connect(case) or not case.session.instance.backend
    return case.well and case.odd_one_out and seen


def _kept_or_proved(case: Case, repair: Repair) -> Proof | Kept:
    fact, paired = case.session.claim, case.session.record.paired
    if repair.unpaired and not paired:
        return Proof(Ground.ENDED)
    # Others put it on its server, and it cannot be known that they did not pair it.
    if fact and fact.claim.pairing_unknown and fact.claim.made_elsewhere and not paired:
        return _kept(case, "this agent did not make it")
    connected = case.verdict.state is ConnectionStatus.CONNECTED
    if case.reads and (connected or repair.trouble is Trouble.KEYS):
        return _kept(case, "it reads messages")
    if repair.goal is Goal.RECOVER:
        return _kept(case, "this repair tries only what keeps the pairing")
    if case.policy.unpair is Unpair.NEVER:
        return _kept(case, 'agent.toml has [recovery] unpair = "never"')
    if not case.well:
        why = "many sessions fail alike, or the network is down: a new pairing may not help"
        return Kept(WHATSAPP_AWAY, why, _word_for_it(case))
    if repair.trouble is Trouble.SUSPECT:
        if (kept := _files_elsewhere(case)) is not None:
            return kept
        asked = repair.goal in _ASKED
        return Proof(Ground.LOST_STORE) if asked else _kept(case, "its pairing may come back")
    if case.verdict.health not in (Health.STUCK, Health.CORRUPTED):
        return _kept(case, "nothing shows that a new pairing would help")
    if not _others_connect(case):
        here = "the server" if case.session.instance.backend else "this machine"
        why = f"no session beside this one is connected, so {here} may not reach WhatsApp"
        return Kept(WHATSAPP_AWAY, why, _word_for_it(case))
    if not case.odd_one_out:
        return _kept(case, "other sessions fail alike, so the cause may not be its own")
    if repair.trouble is Trouble.FILES and (kept := _files_elsewhere(case)) is not None:
        return kept
    return _in_its_time(case, repair)


def _files_elsewhere(case: Case) -> Kept | None:
    """Keep a pairing that is whole in another place: a person or the fleet takes it from there."""
    if case.copied:
        return _kept(case, "another machine has a copy of it")
    if case.good_snapshot and not case.may_roll_back:
        back = f"Put it back: `wa-agent restore {case.session.id} NAME --force` (its names:"
        back = f"{back} `wa-agent snapshots {case.session.id}`). {_word_for_it(case)}"
        why = "a good snapshot of it exists, which only a person may put back"
        return Kept(PAIRING_KEPT, why, back)
    if case.session.folder.files is SessionFiles.ABSENT:
        return _kept(case, "its folder is not there, and may come back")
    return None


def _in_its_time(case: Case, repair: Repair) -> Proof | Kept:
    """Return a proof once each round of the agent's own was calm: an outage unpairs no session."""
    damaged = repair.trouble is Trouble.FILES
    proof = Proof(Ground.DAMAGED_FILES if damaged else Ground.FAILS_ALONE)
    # Where they cannot be read and no copy of them exists, no later round has more to try.
    early = case.policy.unpair is Unpair.EARLY or (damaged and not case.good_snapshot)
    if repair.goal in _ASKED or early or (repair.round >= case.policy.rounds and repair.calm):
        return proof
    why = f"the agent ends it after {case.policy.rounds} rounds, this is round {repair.round}"
    todo = f"To go on now, down to a new code: `wa-agent ensure-healthy {case.session.id}`"
    return Kept(PAIRING_KEPT, why, todo)


def _others_connect(case: Case) -> bool:
    """Where a session hangs, the connection of another one that goes out the same way is the proof
    that WhatsApp can be reached."""
    return case.another_connected or case.verdict.health is not Health.STUCK


def _kept(case: Case, why: str) -> Kept:
    return Kept(PAIRING_KEPT, why, _word_for_it(case))


def _word_for_it(case: Case) -> str:
    command = f"wa-agent ensure-healthy {case.session.id} --yes"
    return f"To end it all the same and get a new code: `{command}`"


_ASKED = (Goal.WORKING_QR, Goal.CLEANUP)
