"""Which pack a session belongs to: several sessions of one engine that share one process."""

from collections import Counter
from collections.abc import Mapping

from agent.core.words import InstanceId

MEMORY = 96 << 20
"""Bytes counted for one session of a pack: its worker, and its part of the shared process."""


def choose_pack(places: Mapping[InstanceId, str], id: InstanceId, engine: str, size: int) -> str:
    """The pack of a session that starts; "" = a process of its own. `places`: the packs of all
    sessions. A session keeps its pack while that is not too full."""
    if size <= 1:
        return ""
    counts = Counter(name for other, name in places.items() if other != id)
    own = places.get(id, "")
    if own and counts[own] < size:
        return own
    number = 1
    while counts[f"{engine}-{number}"] >= size:
        number += 1
    return f"{engine}-{number}"
