"""When a session is asked next: at its interval, and after a hold-up not with all the others."""

import itertools
import random

from agent.supervise.observe import next_look


def test_after_a_hold_up_no_second_gets_more_than_its_share() -> None:
    """A thousand sessions, all asked at the same moment once the machine came back."""
    random.seed(0)
    found = sorted(next_look(940.0, 1000.0, 30.0) for _ in range(1000))
    assert found[0] >= 1015.0
    assert found[-1] <= 1030.0
    fullest = max(len(list(group)) for _, group in itertools.groupby(found, key=int))
    assert fullest < 110
