"""Contacts of whom the session holds no keys: what they write costs it nothing."""

from unittest.mock import Mock

import pytest

from agent.clock import boot_now
from agent.config.config import Config
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.words import Happening
from agent.supervise.facts import Facts, Settings
from agent.supervise.record import judge_keys, signals_of, take_in

SETTINGS = Settings(Config())


def after(errors: int, peers: int, **more: str) -> Facts:
    facts = Facts(Instance(InstanceId("a"), "baileys", True), SessionRecord(paired=True))
    for number in range(errors):
        peer, id = f"55119000000{number % peers:02}", f"{number % peers}"
        detail = {"text": "Bad MAC", "peer": peer, "id": id, **more}
        take_in(Mock(settings=SETTINGS), facts, Happening("crypto_error", detail))
    return facts


@pytest.mark.parametrize(("errors", "peers"), [(8, 1), (400, 90)])
def test_strangers_ask_for_no_step_however_much_they_write(errors: int, peers: int) -> None:
    policy, later = SETTINGS.config.crypto, boot_now() + 60
    assert judge_keys(after(errors, peers), policy, later).signal is not None
    facts = after(errors, peers, stranger="true")
    found = judge_keys(facts, policy, later)
    assert (found.signal, found.peers) == (None, ())
    assert facts.counters.errors == {"crypto_stranger": errors}
    assert not [signal for signal in signals_of(SETTINGS, facts) if "crypto" in signal.name]
