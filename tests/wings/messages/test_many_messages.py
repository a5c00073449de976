"""A hundred thousand messages in one session: none is lost, none comes twice, memory is bounded."""

import tracemalloc
from pathlib import Path

from tests.wings.messages.spools import entries, numbers_of, spool_at

MANY = 100_000


def test_a_hundred_thousand_are_read_in_their_order_each_once(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, most=2 * MANY)
    for first in range(0, MANY, 1000):
        assert spool.append(entries(range(first, first + 1000))) == 1000
    assert spool.append(entries(range(0, MANY, 500))) == 0
    spool.close()
    tracemalloc.start()
    try:
        again = spool_at(tmp_path, most=2 * MANY)
        again.open()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * 2**20, "eight bytes for each message, and the segments"
    after, expected = 0, 0
    while (page := again.page(after, 1000)).records:
        found = numbers_of(page.records)
        assert found == list(range(expected, expected + len(found)))
        after, expected = page.next, expected + len(found)
    assert expected == MANY
    assert again.append(entries(range(1, MANY, 777))) == 0
