"""Whether the database's word counts: by its own clock only where nothing else is known."""

from agent.core.fleet.lease import LeasePolicy
from agent.core.fleet.settling import Settling

POLICY = LeasePolicy(ttl=20)


def test_an_agent_that_begins_believes_a_database_that_runs_for_long() -> None:
    settling = Settling().heard("a", 100.0)
    assert settling.settled(True, 100.0, POLICY)
    assert not settling.settled(False, 119.9, POLICY)
    assert settling.heard("a", 110.0).settled(False, 120.0, POLICY), "its clock was set back"


def test_a_promoted_replica_is_settled_a_ttl_after_it_answered_however_long_it_runs() -> None:
    settling = Settling().heard("a", 100.0).heard("b", 500.0).heard("b", 510.0)
    assert not settling.settled(True, 519.9, POLICY)
    assert settling.settled(True, 520.0, POLICY)
