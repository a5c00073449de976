"""Named points: off unless asked for."""

import pytest

from agent.files import FailpointHit, failpoint


def test_only_the_named_point_fails_and_only_when_its_turn_comes(monkeypatch):
    monkeypatch.delenv("WA_FAILPOINT", raising=False)
    failpoint("before_commit")
    monkeypatch.setenv("WA_FAILPOINT", "before_commit:raise:3")
    failpoint("before_commit")
    failpoint("after_commit")
    failpoint("before_commit")
    for _ in range(2):
        with pytest.raises(FailpointHit, match="before_commit"):
            failpoint("before_commit")
