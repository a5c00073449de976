"""The ladder of a session that a server runs: each step where it helps, until a code is shown."""

import itertools
from dataclasses import replace

import pytest

from agent.core.health import HealthPolicy, judge_health
from agent.core.model import ConnectionStatus, Instance, InstanceId, SessionFiles, SessionRecord
from agent.core.recovery.ladder import after_action, begin_repair, step_repair, wants_repair
from agent.core.recovery.pairing import Case, RecoveryPolicy, Unpair, may_repair_end_it
from agent.core.recovery.repair import Consent, Ending, Goal, Kept, Proof, RecoveryKind, Repair
from agent.core.session import Session
from tests.core.made import NOW, PAIRED, WALL, case_of, said, seen, surroundings
from tests.sessions import changed

K = RecoveryKind
S = ConnectionStatus
HEALTH = HealthPolicy()
POLICY = RecoveryPolicy()
THERE = Instance(InstanceId("sales"), "evolution", True, {"backend": "evo"})
NEVER_PAIRED = SessionRecord()
REMOTE = surroundings(can_log_out=True)
STILL = frozenset({K.RECONNECT, K.RESTART, K.LOGOUT_RESTART, K.CLEANUP})
"""Steps after which a server's session has the time of a start."""


def connecting(
    record: SessionRecord, *, ago: float, useless: tuple[str, ...] = ("reconnect",)
) -> Session:
    claim = said(S.INITIALIZING, ago=ago, useless=useless)
    files = SessionFiles.WHOLE if record.paired else SessionFiles.UNPAIRED
    return seen(instance=THERE, record=record, claim=claim, files=files)


CODE = seen(
    instance=THERE, record=NEVER_PAIRED, claim=said(S.QR_REQUIRED), files=SessionFiles.UNPAIRED
)
LOGGED_OUT = changed(CODE, claim=said(S.DISCONNECTED, reason="logout", ago=5.0))


class Server:
    """Plays a stuck session in time: what is done to it, and what it shows afterwards."""

    def __init__(self, record: SessionRecord, heals: K | None, **how: object) -> None:
        self.record = record
        self.heals = heals
        self.times = how.get("times", 1)  # that the step must be done which heals it
        self.useless = how.get("useless", ("reconnect",))
        self.after_logout = how.get("after_logout")
        self.done: list[tuple[K, float]] = []
        self.begun = -100.0
        self.healed = False

    def shows(self, at: float) -> Session:
        if self.healed:
            return seen(instance=THERE) if self.record.paired else CODE
        last = self.done[-1][0] if self.done else None
        if last is K.LOGOUT_RESTART and self.after_logout is not None:
            return self.after_logout
        return connecting(self.record, ago=at - self.begun, useless=self.useless)

    def act(self, kind: K, at: float) -> None:
        self.done.append((kind, at))
        if kind in STILL:
            self.begun = at
        if kind in (K.LOGOUT_RESTART, K.CLEANUP):
            self.record = NEVER_PAIRED
        often = [did for did, _ in self.done].count(kind) >= self.times
        self.healed = self.healed or (kind is self.heals and often)


def play(
    server: Server,
    goal: Goal = Goal.HEAL,
    around: Case = REMOTE,
    limit: float = 86400.0,
    *,
    works: tuple[K, ...] = tuple(K),
    begun: tuple[Repair, float] | None = None,
    policy: RecoveryPolicy = POLICY,
) -> tuple[Repair, float]:
    """Until the repair is over, or the time is; the seconds since it was stuck for 30 s."""
    new = begin_repair(judge_health(server.shows(0.0), HEALTH, NOW), goal, WALL)
    repair, at = begun or (new, 0.0)
    while at < limit:
        repair, action = step_repair(case_of(server.shows(at), around, policy, WALL + at), repair)
        if repair.over:
            break
        if action.kind is K.WAIT:
            at = min(action.not_before_wall - WALL, at + 10.0)
            continue
        at += 2.0
        ok = action.kind in works
        server.act(action.kind, at) if ok else server.done.append((action.kind, at))
        repair = after_action(repair, action.kind, ok, policy, WALL + at, backup="there")
    return repair, at


def kinds(server: Server) -> list[K]:
    return [kind for kind, _ in server.done if kind is not K.BACK_UP]


def test_an_unpaired_session_is_restarted_and_then_created_again_within_two_minutes():
    server = Server(NEVER_PAIRED, heals=K.CLEANUP)
    repair, at = play(server)
    assert kinds(server) == [K.RESTART, K.CLEANUP]
    assert repair.ending is Ending.CLEANED
    assert at < 90


def test_the_ladder_goes_on_until_a_code_is_shown():
    server = Server(NEVER_PAIRED, heals=None)
    repair, _at = play(server, limit=6 * 3600.0)
    assert not repair.over
    made = [at for kind, at in server.done if kind is K.CLEANUP]
    assert len([each for each in made if each < 600]) >= 3, "in minutes, not in half hours"
    pauses = [after - before for before, after in itertools.pairwise(made)]
    assert max(pauses) <= POLICY.round_pause + 120
    assert pauses[-1] > POLICY.round_pause, "and more seldom as it lasts"


def test_a_pairing_is_ended_after_all_restarts_of_three_rounds_and_no_step_cuts_off_another():
    server = Server(replace(PAIRED), heals=None)
    repair, _ = play(server, limit=8000.0)
    assert kinds(server)[:9] == [K.RESTART] * 9
    assert kinds(server)[9:11] == [K.LOGOUT_RESTART, K.CLEANUP]
    acted = [at for kind, at in server.done if kind in STILL]
    gaps = [after - before for before, after in itertools.pairwise(acted)]
    assert min(gaps) >= HEALTH.stuck, "Baileys alone takes 20 s to find out"
    assert (repair.over, repair.unpaired) == (False, True), "it owes a code"


@pytest.mark.parametrize(("times", "within"), [(2, 120), (6, 2100), (9, 4000)])
def test_a_session_that_hangs_again_after_a_restart_keeps_its_pairing(times, within):
    """Operators tell of six restarts that such a session needed."""
    server = Server(replace(PAIRED), heals=K.RESTART, times=times)
    repair, at = play(server)
    assert kinds(server) == [K.RESTART] * times
    assert (repair.ending, at < within) == (Ending.RECOVERED, True)


@pytest.mark.parametrize("unpair", [Unpair.LAST, Unpair.EARLY])
def test_where_no_other_session_of_its_server_is_connected_the_pairing_is_kept(unpair):
    """That its server answers does not show that it reaches WhatsApp."""
    server = Server(replace(PAIRED), heals=None)
    alone = replace(REMOTE, another_connected=False)
    repair, _ = play(server, around=alone, limit=9000.0, policy=replace(POLICY, unpair=unpair))
    assert set(kinds(server)) == {K.RESTART}
    assert not repair.over and len(kinds(server)) >= 4 * POLICY.tries, "it is tried on and on"
    server.heals = K.RESTART
    server.times = len(kinds(server)) + 1
    repair, _ = play(server, around=alone, begun=(repair, 9000.0))
    assert repair.ending is Ending.RECOVERED


def test_a_round_in_which_its_server_may_have_been_cut_off_is_no_proof():
    server = Server(replace(PAIRED), heals=None)
    begun = play(server, limit=3830.0)
    assert (begun[0].round, kinds(server)) == (3, [K.RESTART] * 7), "its last round has begun"
    begun = play(server, around=replace(REMOTE, another_connected=False), begun=begun, limit=3860.0)
    play(server, begun=begun, limit=5600.0)
    assert set(kinds(server)) == {K.RESTART}


def test_steps_that_do_nothing_on_this_engine_are_left_out():
    server = Server(replace(PAIRED), heals=None, useless=("reconnect", "restart"))
    play(server, limit=1700.0)
    assert kinds(server) == []
    server = Server(NEVER_PAIRED, heals=K.CLEANUP, useless=("reconnect", "restart"))
    play(server)
    assert kinds(server) == [K.CLEANUP]


@pytest.mark.parametrize("after_logout", [None, LOGGED_OUT], ids=["connecting", "logged out"])
def test_a_logout_of_ours_is_not_the_end_whatever_the_session_says_next(after_logout):
    server = Server(replace(PAIRED), heals=K.CLEANUP, after_logout=after_logout)
    repair, at = play(server, goal=Goal.WORKING_QR)
    assert kinds(server) == [K.RESTART, K.LOGOUT_RESTART, K.CLEANUP]
    assert repair.ending is Ending.CLEANED
    assert repair.answer == {"healthy": True, "cleaned": True, "recovered": False}
    assert at < 240, "who asked for a code waits five minutes at most"
    server = Server(replace(PAIRED), heals=K.CLEANUP, after_logout=after_logout)
    repair, _ = play(server)
    assert kinds(server)[-2:] == [K.LOGOUT_RESTART, K.CLEANUP]
    assert repair.ending is Ending.CLEANED


@pytest.mark.parametrize("joined", [None, Goal.WORKING_QR], ids=["alone", "asked for meanwhile"])
def test_a_repair_that_ended_a_pairing_is_not_over_before_a_code_is_shown(joined):
    silent = Server(replace(PAIRED), heals=None)
    repair, at = play(silent, limit=3600.0 * 3)
    assert not repair.over and kinds(silent).count(K.CLEANUP) > 2, "it goes on, round by round"
    if joined is not None:
        repair = repair.join(joined)
    silent.healed = True
    repair, _ = step_repair(case_of(CODE, REMOTE, POLICY, WALL + at + 1), repair)
    assert repair.ending is Ending.CLEANED
    assert repair.answer == {"healthy": True, "cleaned": True, "recovered": False}


def test_a_session_that_never_paired_is_given_up_after_one_round():
    repair, at = play(Server(NEVER_PAIRED, heals=None), goal=Goal.WORKING_QR)
    assert (repair.ending, at < 240) == (Ending.GAVE_UP, True)


@pytest.mark.parametrize("consent", [Consent.NONE, Consent.PAIRING])
def test_a_pairing_made_since_the_clean_up_ends_by_a_word_given_since(consent):
    """A phone scanned the code, and the session hangs: the clean-up was the pairing before."""
    repair, at = play(Server(NEVER_PAIRED, heals=None), limit=40.0)
    assert repair.cleaned
    repair = replace(repair, consent=Consent.PAIRING).join(Goal.WORKING_QR, consent)
    assert repair.consent is consent, "the word of before was for what is cleaned up"
    paired = Server(replace(PAIRED), heals=K.CLEANUP)
    alone = replace(REMOTE, another_connected=False)  # nothing proves that WhatsApp is reached
    repair, _ = play(paired, begun=(repair, at), around=alone, limit=400.0)
    assert K.CLEANUP not in kinds(paired)


def test_a_logout_step_that_failed_half_way_is_not_the_end_either():
    """The server logged it out, and the connect after that came to nothing."""
    server = Server(replace(PAIRED), heals=K.CLEANUP, after_logout=LOGGED_OUT)
    repair, _ = play(server, works=tuple(set(K) - {K.LOGOUT_RESTART}))
    assert kinds(server)[-2:] == [K.LOGOUT_RESTART, K.CLEANUP]
    assert repair.ending is Ending.CLEANED


def test_a_logout_that_brought_a_code_has_cleaned_and_not_recovered():
    repair, _ = play(Server(replace(PAIRED), heals=K.LOGOUT_RESTART), goal=Goal.WORKING_QR)
    assert repair.answer == {"healthy": True, "cleaned": True, "recovered": False}


def test_a_logout_that_fails_goes_on_to_the_clean_up():
    server = Server(replace(PAIRED), heals=K.CLEANUP)
    repair, at = play(server, goal=Goal.WORKING_QR, works=tuple(set(K) - {K.LOGOUT_RESTART}))
    assert kinds(server) == [K.RESTART, *[K.LOGOUT_RESTART] * 3, K.CLEANUP]
    assert (repair.ending, at < 240) == (Ending.CLEANED, True)


def test_a_logout_that_the_server_answers_and_does_not_do_is_not_asked_for_again():
    stuck = connecting(PAIRED, ago=99.0)
    repair = begin_repair(judge_health(stuck, HEALTH, NOW), Goal.WORKING_QR, WALL)
    repair = replace(repair, step=K.LOGOUT_RESTART, tries=1, backup="there")
    for refusal, expected in (("no_effect", K.CLEANUP), ("", K.LOGOUT_RESTART)):
        reported = after_action(repair, K.LOGOUT_RESTART, False, POLICY, WALL, refusal=refusal)
        assert step_repair(case_of(stuck, REMOTE, POLICY, WALL + 10), reported)[1].kind is expected


def test_a_clean_up_does_not_wait_for_what_a_milder_step_may_do():
    repair, at = play(Server(replace(PAIRED), heals=K.CLEANUP), limit=35.0)
    repair = repair.join(Goal.CLEANUP, Consent.PAIRING)
    repair, action = step_repair(
        case_of(connecting(PAIRED, ago=3.0), REMOTE, POLICY, WALL + at), repair
    )
    assert action.kind is K.BACK_UP


def test_in_an_incident_one_without_a_pairing_goes_all_the_way_for_the_others():
    held = replace(REMOTE, well=False)
    server = Server(NEVER_PAIRED, heals=K.CLEANUP)
    play(server, around=held, limit=900.0)
    assert kinds(server) == []
    play(server, around=replace(held, canary=True), limit=900.0)
    assert kinds(server) == [K.RESTART, K.CLEANUP]
    paired = Server(replace(PAIRED), heals=K.CLEANUP)
    play(paired, around=replace(held, canary=True), limit=86400.0)
    assert set(kinds(paired)) == {K.RESTART}, "a pairing is never given up for others"


def test_an_unpaired_session_is_repaired_again_soon_after_a_repair_that_was_asked_for():
    stuck = judge_health(connecting(NEVER_PAIRED, ago=99.0), HEALTH, NOW)
    asked = begin_repair(stuck, Goal.WORKING_QR, WALL)
    gave_up = replace(asked, ending=Ending.GAVE_UP, ended_wall=WALL, acts=1)
    assert not wants_repair(stuck, gave_up, POLICY, WALL + 5)
    assert wants_repair(stuck, gave_up, POLICY, WALL + 60)
    paired = judge_health(connecting(PAIRED, ago=99.0), HEALTH, NOW)
    assert not wants_repair(paired, gave_up, POLICY, WALL + 60)
    assert wants_repair(paired, gave_up, POLICY, WALL + POLICY.round_pause), "its own rounds begin"
    of_its_own = replace(gave_up, goal=Goal.HEAL)
    assert not wants_repair(paired, of_its_own, POLICY, WALL + POLICY.round_pause)


def test_a_held_session_that_shows_its_code_is_well():
    held = changed(CODE, wait_reason="incident")
    repair = begin_repair(case_of(connecting(NEVER_PAIRED, ago=99)).verdict, Goal.WORKING_QR, WALL)
    repair, _ = step_repair(case_of(held, replace(REMOTE, well=False)), repair)
    assert repair.ending is Ending.NO_STEP


def test_a_repair_that_has_no_step_to_try_says_so_and_one_that_waits_for_a_step_does_not():
    hangs = connecting(PAIRED, ago=99, useless=("reconnect", "restart", "logout_restart"))
    case = case_of(hangs, replace(REMOTE, well=False, canary=True))
    repair, action = step_repair(case, begin_repair(case.verdict, Goal.HEAL, WALL))
    assert (action.kind, action.idle) == (K.WAIT, True)
    assert not step_repair(case, repair)[1].idle, "its round has ended already"

    tries = replace(case, session=connecting(PAIRED, ago=99))
    repair, action = step_repair(tries, begin_repair(case.verdict, Goal.HEAL, WALL))
    assert (action.kind, action.idle) == (K.RESTART, False)


def test_a_step_that_comes_up_after_an_empty_round_waits_for_no_pause():
    nothing = connecting(PAIRED, ago=99, useless=("reconnect", "restart", "logout_restart"))
    verdict, policy = judge_health(nothing, HEALTH, NOW), POLICY
    repair = begin_repair(verdict, Goal.HEAL, WALL)
    around = replace(REMOTE, another_connected=False)
    repair, action = step_repair(case_of(nothing, around, policy, WALL), repair)
    assert action.not_before_wall == WALL + policy.round_pause
    again = case_of(connecting(PAIRED, ago=99), around, policy, WALL + 5.0)
    repair, action = step_repair(again, repair)
    assert action.kind is K.RESTART
    repair = after_action(repair, K.RESTART, False, policy, WALL + 6.0)
    _, action = step_repair(replace(again, now_wall=WALL + 6.5), repair)
    assert action.kind is K.WAIT, "between two tries of a step there is a pause as ever"


def test_an_empty_round_brings_the_end_of_a_pairing_no_nearer_in_time():
    nothing = connecting(PAIRED, ago=99, useless=("reconnect", "restart", "logout_restart"))
    repair, at = begin_repair(judge_health(nothing, HEALTH, NOW), Goal.HEAL, WALL), 0.0
    while at < 2 * POLICY.round_pause - 60.0:
        repair, action = step_repair(case_of(nothing, REMOTE, POLICY, WALL + at), repair)
        assert action.kind is K.WAIT
        at += 30.0


def test_where_a_pairing_is_only_possible_its_answer_says_so_and_what_to_type():
    hangs = connecting(NEVER_PAIRED, ago=99)
    assert hangs.claim is not None
    claim = replace(hangs.claim.claim, pairing_unknown=True)
    hangs = changed(hangs, claim=replace(hangs.claim, claim=claim))
    case = case_of(hangs, REMOTE)
    kept = may_repair_end_it(case, begin_repair(case.verdict, Goal.HEAL, WALL))
    assert isinstance(kept, Kept)
    assert "it may have a pairing, so nothing is tried that could end it" in kept.sentence
    assert kept.sentence.endswith("`wa-agent ensure-healthy sales`")
    asked = may_repair_end_it(case, begin_repair(case.verdict, Goal.WORKING_QR, WALL))
    assert isinstance(asked, Proof), "another one of its server is connected"


def test_what_may_be_anothers_pairing_is_ended_by_no_round_and_by_a_persons_word_alone():
    hangs = connecting(NEVER_PAIRED, ago=99)
    assert hangs.claim is not None
    claim = replace(hangs.claim.claim, pairing_unknown=True, made_elsewhere=True)
    hangs = changed(hangs, claim=replace(hangs.claim, claim=claim))
    case = case_of(hangs, REMOTE)
    for goal in (Goal.HEAL, Goal.WORKING_QR):
        repair = replace(begin_repair(case.verdict, goal, WALL), round=POLICY.rounds, calm=True)
        kept = may_repair_end_it(case, repair)
        assert isinstance(kept, Kept), goal
        assert kept.sentence.startswith("this agent did not make it; it may have a pairing")
        assert kept.sentence.endswith("`wa-agent ensure-healthy sales --yes`")
    confirmed = replace(begin_repair(case.verdict, Goal.WORKING_QR, WALL), consent=Consent.PAIRING)
    assert isinstance(may_repair_end_it(case, confirmed), Proof)
    known = changed(hangs, claim=replace(hangs.claim, claim=replace(claim, pairing_unknown=False)))
    proved = may_repair_end_it(case_of(known, REMOTE), repair)
    assert isinstance(proved, Proof), "its keys have no account"
