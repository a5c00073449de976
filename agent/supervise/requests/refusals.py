"""What a request for a repair is refused with, and how far one goes that shows no code."""

from collections.abc import Iterable

from agent.core.recovery.pairing import WHATSAPP_AWAY
from agent.core.recovery.repair import Ending, Goal, RecoveryKind, Stage
from agent.core.waiting import AWAY
from agent.errors import Refused, TryLater
from agent.host.base import Host
from agent.supervise.facts import Facts


def refuse_silent(facts: Facts) -> None:
    """TryLater where its server connects it for long and shows no code."""
    if shows_no_code(facts):
        raise TryLater(
            f"{facts.id} shows no code: {facts.sentence}. Its repair goes on until it shows one;"
            f" ask for it then: wa-agent qr {facts.id}",
            code=WHATSAPP_AWAY,
        )


def is_kept_away(facts: Facts) -> bool:
    """WhatsApp is not reached, so no step of its repair can help it, and its pairing is kept."""
    return facts.repair.kept is not None and facts.repair.kept.code == WHATSAPP_AWAY


def had_its_round(facts: Facts) -> bool:
    """The round that was asked for is over, and its repair goes on as the agent's own."""
    last = facts.repair.last
    return last is not None and not last.over and last.goal is Goal.HEAL and not last.unpaired


def is_over_for(facts: Facts, goal: Goal) -> bool:
    """Whether who asked for a repair has nothing more to wait for, though it goes on."""
    return had_its_round(facts) or (goal is Goal.WORKING_QR and is_kept_away(facts))


def refuse_kept(facts: Facts) -> None:
    """TryLater where its repair keeps the pairing, and has ended or cannot help now."""
    last, kept = facts.repair.last, facts.repair.kept
    if kept is None or last is None:
        return
    if not last.over and (is_kept_away(facts) or had_its_round(facts)):
        goes_on = "The agent goes on with the steps that keep it"
        raise TryLater(f"cannot heal {facts.id} now: {kept.sentence}. {goes_on}", code=kept.code)
    if last.ending is Ending.GAVE_UP:
        raise TryLater(f"cannot heal {facts.id}: {kept.sentence}", code=kept.code)


def refuse_failed(facts: Facts, ending: str) -> None:
    """TryLater where the clean-up that was asked for could not be done."""
    last = facts.repair.last
    if ending == Ending.GAVE_UP and not (last is not None and last.answer["cleaned"]):
        cause = facts.action.refusal or facts.sentence
        raise TryLater(f"cannot clean up {facts.id}: {cause}", code="cleanup_failed")


def waits_in_vain(facts: Facts, fellows: Iterable[Facts], asked_at: float) -> bool:
    """Its server shows no code, although the repair of it, or of one of `fellows` (members of its
    incident), renewed it since `asked_at`."""
    made_again = (member for member in (facts, *fellows) if member.begun_at >= asked_at)
    return shows_no_code(facts) and any(_made_again_in_vain(member) for member in made_again)


def _made_again_in_vain(facts: Facts) -> bool:
    """A repair renewed the session, and the time for a code is over."""
    repair = facts.repair.last
    if repair is None or repair.stage is not Stage.DUE:
        return False
    between_rounds = repair.unpaired and repair.step is RecoveryKind.NONE
    tried = repair.cleaned or between_rounds or repair.ending is Ending.GAVE_UP
    return tried and shows_no_code(facts)


def shows_no_code(facts: Facts) -> bool:
    """Without a pairing, its server connects it for long and shows no code."""
    verdict = facts.verdict
    hangs = verdict is not None and verdict.reason == "state_stuck" and verdict.should_cleanup
    return hangs and bool(facts.instance.backend)


def refuse_away(facts: Facts) -> None:
    if facts.wait.reason in AWAY:
        raise TryLater(f"cannot reach {facts.id}: {facts.sentence}", code=facts.wait.reason)


def refuse_unwanted(facts: Facts, host: Host) -> None:
    if not facts.desired(host.boot_id()).should_run:
        raise Refused(
            f"cannot repair {facts.id}: it is disabled or stopped; enable or start it first",
            code="not_wanted",
        )
