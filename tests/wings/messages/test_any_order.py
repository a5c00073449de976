"""Whatever happens to a spool in whatever order, it agrees with a list of what was acknowledged."""

import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.wings.messages.spool.spool import Spool
from tests.wings.messages.spools import entries, numbers_of, read_all, segments, spool_at

BOUNDS = {"most": 32}
"""Two lines a segment."""


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="wa-spool-"))
        self.spool: Spool = spool_at(self.folder, **BOUNDS)
        self.cursors: dict[int, int] = {}
        """Of each message that was acknowledged."""
        self.next = 0
        self.readers = [0]
        self.settled = 0

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)

    @rule(count=st.integers(1, 5), again=st.integers(0, 3))
    def arrive(self, count: int, again: int) -> None:
        """`again`: how many of the last ones come a second time with them."""
        kept = [number for number in sorted(self.cursors)[-again:] if again]
        before = self.spool.newest
        numbers = [*kept, *range(self.next, self.next + count)]
        assert self.spool.append(entries(numbers)) == count
        for place, number in enumerate(range(self.next, self.next + count)):
            self.cursors[number] = before + 1 + place
        self.next += count

    @rule(count=st.integers(1, 5), call=st.sampled_from(["fdatasync", "pwrite", "fsync"]))
    def arrive_on_a_bad_disk(self, count: int, call: str) -> None:
        numbers, before = range(self.next, self.next + count), self.spool.newest
        try:
            with mock.patch.object(os, call, side_effect=OSError(28, "full")):
                self.spool.append(entries(numbers))
        except OSError:
            # A later try may find that some were kept: those before the one that failed.
            for cursor in range(before + 1, self.spool.newest + 1):
                self.cursors[self.next] = cursor
                self.next += 1
        else:
            for number in numbers:
                self.cursors[number] = self.spool.newest - (numbers[-1] - number)
            self.next += count

    @rule(torn=st.binary(max_size=40) | st.none())
    def restart(self, torn: bytes | None) -> None:
        """`torn`: how much of one more line a kill left."""
        newest = self.spool.newest
        self.spool.close()
        if torn and segments(self.folder):
            with segments(self.folder)[-1].open("ab") as file:
                line = b"%08x\t%d\t" % (7, newest + 1)
                file.write((line + b"x" * 60)[: 1 + len(torn)])
        self.spool = spool_at(self.folder, **BOUNDS)
        if self.cursors:
            assert self.spool.newest == newest and not self.spool.damaged

    @rule(back=st.integers(0, 6))
    def settle(self, back: int) -> None:
        cursor = max(0, self.spool.newest - back)
        self.spool.settle(cursor)
        if self.cursors:
            self.settled = max(self.settled, cursor)

    @rule(limit=st.integers(1, 7), reader=st.integers(0, 3))
    def read_on(self, limit: int, reader: int) -> None:
        after = self.readers[reader % len(self.readers)]
        page = self.spool.page(after, limit)
        for record in page.records:
            if record["kind"] == "message":
                assert self.cursors[int(record["message_id"])] == record["cursor"] > after
            after = record["cursor"]
        self.readers[reader % len(self.readers)] = page.next
        if len(self.readers) < 4:
            self.readers.append(page.next)

    @invariant()
    def agrees(self) -> None:
        found = read_all(self.spool)
        messages = [record for record in found if record["kind"] == "message"]
        oldest = self.next - len(messages)
        assert numbers_of(messages) == list(range(oldest, self.next))
        assert [each["cursor"] for each in messages] == [
            self.cursors[number] for number in range(oldest, self.next)
        ]
        assert oldest == 0 or len(messages) > 32 - 2 * 2
        lost = [number for number in range(oldest) if self.cursors[number] > self.settled]
        assert self.spool.state()["lost"] >= len(lost)
        # A gap stands before the messages only, and counts no message that can be read.
        assert [record["kind"] for record in found[1:]] == ["message"] * len(found[1:])


TestAnyOrder = Machine.TestCase
TestAnyOrder.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, phases=(Phase.generate, Phase.shrink)
)
