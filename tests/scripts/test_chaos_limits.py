"""`scripts/chaos limits` at a small load; it fails where something is lost or out of its order."""

from typing import Any

import pytest

from scripts.limits import __main__ as program
from scripts.limits.bed import broke


def record(number: int, kind: str = "message", **more: Any) -> dict[str, Any]:
    return {"id": f"m{number}", "kind": kind, "cursor": number, "chat": "a", **more}


def test_each_loss_each_double_and_each_change_of_order_is_told() -> None:
    three = [record(number) for number in range(3)]
    assert broke(3, three, [*three, three[2]]) == [], "again is what is promised"
    assert broke(4, three, three) == ["4 were written, 3 are kept"]
    assert broke(3, three, three[:2]) == ["1 did not reach the webhook"]
    assert broke(3, three, three[::-1]) == ["the webhook got those of one chat in another order"]
    other = [{**three[0], "chat": "b"}, *three[1:]]
    assert broke(3, other, [*other[1:], other[0]]) == [], "chats go side by side"
    assert broke(3, [*three, {**three[0], "cursor": 9}], three) == ["1 were kept twice"]
    gap = record(9, "message_gap", missing=2)
    assert broke(3, [*three, gap], three) == ["a reader was told of 2 missing"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["waiting", "--messages", "1200"], "/metrics"),
        (["burst", "--messages", "300"], "nothing arrives any more"),
        (["outage", "--seconds", "12", "--rate", "5", "--kills", "2"], "The agent said: failing, "),
    ],
    ids=["waiting", "burst", "outage"],
)
def test_a_small_load_is_kept_and_delivered(
    capsys: pytest.CaptureFixture[str], words: list[str], last: str
) -> None:
    assert program.main(words) == 0, capsys.readouterr().err
    assert last in capsys.readouterr().out
