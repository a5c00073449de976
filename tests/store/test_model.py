"""Any order of changes, refusals and restarts: the store says what a plain dict would say."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.model import SessionRecord
from agent.errors import NotFound, Refused
from agent.store.database import Store
from tests.store.conftest import entry, instance

IDS = st.sampled_from(["a", "b", "c"])
RECORDS = st.builds(SessionRecord, attempts=st.integers(0, 99), reason=st.text(max_size=5))
SETTINGS = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3))


class StoreAndDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.store = self.runner.run(Store.open(Path(self.folder.name) / "agent.db"))
        self.rows = {}
        self.told = []

    def do(self, call, entry, *, allowed, error):
        try:
            self.runner.run(call)
        except (Refused, NotFound) as refused:
            assert not allowed
            assert isinstance(refused, error)
        else:
            assert allowed
            self.told.append(entry.kind)
        return allowed

    @rule(id=IDS, record=RECORDS, config=SETTINGS)
    def add(self, id, record, config):
        made, said = instance(id, settings=config), entry(f"add {id}", id)
        call = self.store.add(made, record, said)
        if self.do(call, said, allowed=id not in self.rows, error=Refused):
            self.rows[id] = (made, record)

    @rule(id=IDS, enabled=st.booleans(), config=SETTINGS, record=RECORDS)
    def change(self, id, enabled, config, record):
        said = entry(f"change {id}", id)
        made = replace(instance(id), enabled=enabled, settings=config)
        call = self.store.save(made, record, said)
        if self.do(call, said, allowed=id in self.rows, error=NotFound):
            self.rows[id] = (made, record)

    @rule(id=IDS)
    def remove(self, id):
        said = entry(f"remove {id}", id)
        call = self.store.remove(instance(id).id, said)
        if self.do(call, said, allowed=id in self.rows, error=NotFound):
            del self.rows[id]

    @rule()
    def restart(self):
        self.runner.run(self.store.close())
        self.store = self.runner.run(Store.open(Path(self.folder.name) / "agent.db"))
        assert self.store.rebuilt_from == ()

    @invariant()
    def they_agree(self):
        assert {one.id: (one, r) for one, r in self.runner.run(self.store.instances())} == self.rows
        history = self.runner.run(self.store.history(after=0, limit=1000))
        assert [one.kind for one in history] == self.told

    def teardown(self):
        self.runner.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()


TestStoreAndDict = StoreAndDict.TestCase
TestStoreAndDict.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
