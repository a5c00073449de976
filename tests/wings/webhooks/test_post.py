"""What a webhook is sent, what its answers mean, how long it is waited for."""

import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Category, InstanceId, JournalEntry
from agent.wings.webhooks.courier import next_wait
from agent.wings.webhooks.post import (
    LONGEST_RETRY_AFTER,
    Answer,
    judge_answer,
    parcel_of,
    retry_after,
    wants,
)

NOW = 1_800_000_000.0


def entry(kind: str = "status", instance: str | None = "shop-1", **detail: Any) -> JournalEntry:
    id = None if instance is None else InstanceId(instance)
    return JournalEntry(kind, "a sentence", Category.SESSION, id, NOW, detail, cursor=7)


@pytest.mark.parametrize(
    ("kinds", "instances", "what", "wanted"),
    [
        pytest.param(("*",), ("*",), entry(), True, id="everything"),
        pytest.param(("*",), ("*",), entry(instance=None), True, id="what concerns no instance"),
        pytest.param(("status",), ("*",), entry(), True, id="its kind"),
        pytest.param(("trouble*",), ("*",), entry("trouble_over"), True, id="kinds that begin so"),
        pytest.param(("trouble",), ("*",), entry("trouble_over"), False, id="no beginning unasked"),
        pytest.param(("verdict",), ("*",), entry(), False, id="another kind"),
        pytest.param(("*",), ("shop-?",), entry(), True, id="its instance"),
        pytest.param(("*",), ("shop-?",), entry(instance="shop-10"), False, id="another instance"),
        pytest.param(("*",), ("shop-?",), entry(instance=None), False, id="one instance only"),
        pytest.param(("*",), ("*",), entry("webhook_dead", None, webhook="ops"), False, id="own"),
        pytest.param(("*",), ("*",), entry("webhook_dead", None, webhook="x"), True, id="others'"),
        pytest.param(("*",), ("*",), entry("operator", None, webhook="ops"), True, id="a person's"),
    ],
)
def test_filters_choose_the_events_of_a_webhook(
    kinds: tuple[str, ...], instances: tuple[str, ...], what: JournalEntry, wanted: bool
) -> None:
    assert wants("ops", kinds, instances, what) is wanted


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, Answer.TAKEN),
        (301, Answer.REFUSED),
        (400, Answer.REFUSED),
        (404, Answer.REFUSED),
        (408, Answer.LATER),
        (410, Answer.REFUSED),
        (429, Answer.LATER),
        (500, Answer.LATER),
        (999, Answer.LATER),
    ],
)
def test_every_answer_of_a_target_has_its_meaning(status: int, answer: Answer) -> None:
    assert judge_answer(status) is answer


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("120", 120),
        ("0", 0),
        ("99999999999999999999", LONGEST_RETRY_AFTER),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        ("-5", 0),
        ("soon", 0),
        ("\u0661\u0662", 0),
    ],
)
def test_a_wait_that_is_asked_for_is_kept_within_bounds(text: str | None, seconds: float) -> None:
    assert retry_after(text, NOW) == pytest.approx(seconds, abs=1)


@given(st.text(max_size=80))
def test_the_wait_has_an_end_however_long_a_target_asks_for(text: str) -> None:
    assert 0 <= retry_after(text, NOW) <= LONGEST_RETRY_AFTER


def test_waits_double_up_to_the_longest_with_full_jitter() -> None:
    longest = [next_wait(failures, 0.0, 1.0) for failures in range(1, 13)]
    assert longest[:5] == [1, 2, 4, 8, 16]
    assert longest[-1] == 300
    assert next_wait(500, 0.0, 1.0) == 300
    assert next_wait(5, 0.0, 0.25) == 4
    assert next_wait(1, 77.0, 1.0) == 77


def test_an_infinite_number_holds_nothing_up() -> None:
    found = json.loads(parcel_of(entry(share=float("nan")), "m", "1").body)
    assert (found["detail"], found["id"]) == ({}, 7)
    assert json.loads(parcel_of(entry(share=0.5), "m", "1").body)["detail"] == {"share": 0.5}


def test_an_entry_of_another_journal_has_another_name() -> None:
    first = entry()
    other = JournalEntry("status", "later", wall=NOW + 1, cursor=7)
    assert parcel_of(first, "m", "1").delivery == "7-1800000000000"
    assert parcel_of(other, "m", "1").delivery != "7-1800000000000"
