"""Which pack a session belongs to."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import InstanceId
from agent.supervise.seats import choose_pack

IDS = st.integers(0, 30).map(lambda number: InstanceId(f"i{number}"))


@given(st.lists(IDS, max_size=80), st.integers(1, 8))
def test_a_pack_is_never_too_full_and_a_restart_changes_nothing(starts, size):
    places: dict[InstanceId, str] = {}
    for id in starts:
        before = places.get(id)
        places[id] = choose_pack(places, id, "baileys", size)
        assert before in (None, places[id])
    names = list(places.values())
    if size == 1:
        assert set(names) <= {""}
    else:
        assert all(names.count(name) <= size for name in names)
        assert len(set(names)) == -(-len(names) // size)
