"""Which accepted loss of records a machine has heard of, and whom it refuses a promise for it."""

import json
from dataclasses import asdict

from agent.core.fleet.acceptance import Accepted

NEVER, FIRST, SECOND = "-Infinity", "1763.1", "1763.2"


def test_without_an_accepted_loss_no_version_is_refused():
    mine = Accepted().heard(NEVER, halted=False)
    assert not mine.refuses(NEVER)
    assert not mine.refuses(""), "a version that names none"
    assert not Accepted().refuses(""), "neither has asked a database since its upgrade"
    assert not Accepted().refuses(FIRST)


def test_a_loss_that_was_accepted_long_ago_refuses_no_other_version():
    mine = Accepted().heard(FIRST, halted=False)
    assert (mine.refuses(""), mine.refuses(FIRST), mine.refuses(NEVER)) == (False, False, True)
    assert not mine.follows(Accepted())


def test_who_has_not_heard_of_an_accepted_loss_is_refused():
    before = Accepted().heard(NEVER, halted=False)
    mine = before.heard(FIRST, halted=False)
    assert mine.follows(before)
    assert (mine.refuses(""), mine.refuses(NEVER), mine.refuses(FIRST)) == (True, True, False)
    assert mine.heard(FIRST, halted=False) == mine
    assert Accepted(**json.loads(json.dumps(asdict(mine)))) == mine
    assert mine.heard(SECOND, halted=False).refuses(FIRST)


def test_a_database_that_lost_the_acceptance_takes_nothing_back_until_an_operator_accepts_that():
    mine = Accepted().heard(NEVER, halted=False).heard(FIRST, halted=False)
    assert mine.heard(NEVER, halted=True).refuses(NEVER)
    assert mine.heard(NEVER, halted=True).heard(SECOND, halted=False).refuses(NEVER)


def test_an_agent_that_begins_in_a_halted_fleet_hears_of_the_acceptance():
    mine = Accepted().heard(NEVER, halted=True).heard(FIRST, halted=False)
    assert mine.refuses("")
    assert mine.refuses(NEVER)
