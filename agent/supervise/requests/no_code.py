"""What a set-up answers when the session's server connects and shows no code."""

from agent.errors import TryLater
from agent.supervise.facts import Facts

NO_CODE = "server_shows_no_code"
"""The stable code of that answer."""


def refuse_silent(facts: Facts, *, shared: bool) -> None:
    """TryLater once waiting is in vain: the server shows no code although the session was made
    again, or shows others none either (`shared`: it is in an incident)."""
    repair = facts.repair
    made_again = repair is not None and (repair.cleaned or repair.round > 1)
    if shows_no_code(facts) and (made_again or shared):
        raise TryLater(
            f"{facts.id} shows no code: {facts.sentence}. Its repair goes on until it shows one;"
            f" ask for it then: wa-agent qr {facts.id}",
            code=NO_CODE,
        )


def shows_no_code(facts: Facts) -> bool:
    """Without a pairing, its server has connected it for long and shown no code."""
    verdict = facts.verdict
    hangs = verdict is not None and verdict.reason == "state_stuck" and verdict.should_cleanup
    return hangs and bool(facts.instance.backend)
