"""Where a webhook begins in a session of which it has nothing yet."""

from agent.core.model import InstanceId
from agent.daemon.wing_parts import MessageSource


async def cursor_before(source: MessageSource, id: InstanceId, wall: float) -> int:
    """The cursor before the first record that was kept since then. Found by halves: a session may
    keep a hundred thousand."""
    page = await source.page(id, 0, limit=1)
    low, high = page.oldest - 1, page.newest
    if wall <= 0 or low < 0:
        return 0
    while low < high:
        middle = (low + high) // 2
        page = await source.page(id, middle, limit=2)
        record = next((one for one in page.records if "kept" in one), None)
        if record is None:
            high = middle  # nothing behind it can be read
        elif float(record["kept"]) < wall:
            low = int(record["cursor"])
        else:
            high = middle
    return low
