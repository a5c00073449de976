"""A module that is loaded by its first use is whole for each thread that uses it."""

import importlib
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.lazy import load_when_used

BODY = """
import lazy_gate
lazy_gate.entered.set()
lazy_gate.leave.wait(20)
value = 7
"""


def test_a_second_thread_waits_for_a_module_that_is_being_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = SimpleNamespace(entered=threading.Event(), leave=threading.Event())
    monkeypatch.setitem(sys.modules, "lazy_gate", gate)
    (tmp_path / "lazy_part.py").write_text(BODY)
    monkeypatch.syspath_prepend(tmp_path)
    load_when_used("lazy_part")
    module, found = importlib.import_module("lazy_part"), []
    users = [threading.Thread(target=lambda: found.append(module.value)) for _ in range(2)]
    assert not gate.entered.is_set(), "importing it loads nothing"
    users[0].start()
    assert gate.entered.wait(20)
    users[1].start()
    users[1].join(0.2)  # one that does not wait has failed by then
    gate.leave.set()
    for user in users:
        user.join(20)
    assert found == [7, 7]
    with pytest.raises(AttributeError):
        _ = module.other
