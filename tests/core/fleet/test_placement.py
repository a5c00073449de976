from hypothesis import given
from hypothesis import strategies as st

from agent.core.fleet.placement import Place, Placing, place, place_first

SANDBOX = frozenset({"sandbox"})


def machine(name: str, capacity: int = 10, **more: object) -> Place:
    return Place(name, capacity, engines=SANDBOX, **more)  # type: ignore[arg-type]


def test_the_emptiest_machine_by_its_capacity_takes_the_next_session():
    places = [machine("big", 100, used=50), machine("small", 10, used=4)]
    assert place([Placing("shop", "sandbox")], places).on == {"shop": "small"}


def test_a_session_with_labels_chooses_before_one_that_can_run_anywhere():
    places = [machine("eu", 1, labels={"region": "eu"}), machine("us", 1)]
    chosen = place([Placing("a", "sandbox"), Placing("b", "sandbox", {"region": "eu"})], places)
    assert chosen.on == {"b": "eu", "a": "us"}


def test_a_session_that_is_handed_on_goes_back_to_its_giver_where_that_can_run_it():
    shop, roomy = Placing("shop", "sandbox"), machine("roomy")
    assert place_first(shop, "giver", [machine("giver", used=9), roomy]).on == {"shop": "giver"}
    assert place_first(shop, "giver", [machine("giver", used=10), roomy]).on == {"shop": "roomy"}
    assert place_first(shop, "gone", [roomy]).on == {"shop": "roomy"}
    assert place_first(shop, "giver", [machine("giver", drained=True)]).waiting == {
        "shop": "giver is drained"
    }


def test_every_refused_machine_has_its_reason():
    places = [
        machine("full", 1, used=1),
        machine("drained", drained=True),
        Place("bare", 10),
    ]
    waiting = place([Placing("shop", "sandbox")], places).waiting["shop"]
    assert waiting == (
        "full has no room for another session; drained is drained; bare has no engine sandbox"
    )
    assert place([Placing("shop", "sandbox", on="gone")], places).waiting["shop"] == (
        "no machine gone is alive"
    )


@given(
    sessions=st.integers(0, 40),
    capacities=st.lists(st.integers(1, 8), min_size=1, max_size=6),
)
def test_no_machine_is_overfilled_and_room_is_used_up(sessions: int, capacities: list[int]):
    places = [machine(f"m{number}", capacity) for number, capacity in enumerate(capacities)]
    chosen = place([Placing(f"s{number}", "sandbox") for number in range(sessions)], places)
    assert len(chosen.on) == min(sessions, sum(capacities))
    assert len(chosen.on) + len(chosen.waiting) == sessions
    for spot in places:
        assert list(chosen.on.values()).count(spot.name) <= spot.capacity
