"""Filters choose the events of a webhook; each answer of its target has a meaning."""

import json
from typing import Any

import pytest

from agent.core.model import Category, InstanceId, JournalEntry
from agent.webhooks.courier import Reply, next_wait, pack_event, retry_after, wants
from agent.webhooks.settings import WebhookDeclaration

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
    assert wants(WebhookDeclaration("ops", kinds=kinds, instances=instances), what) is wanted


def test_every_answer_of_a_target_has_its_meaning() -> None:
    for taken, refused, statuses in (
        (True, False, (200, 204, 299)),
        (False, False, (None, 408, 425, 429, 500, 503, 999)),
        (False, True, (301, 400, 401, 404, 410)),
    ):
        for status in statuses:
            reply = Reply(status)
            assert (reply.taken, reply.refused) == (taken, refused), status


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("", 0), ("120", 120), ("0", 0), ("9" * 400, 3600), ("-5", 0), ("soon", 0)),
        *(("Fri, 15 Jan 2027 08:02:00 GMT", 120), ("Friday, 15-Jan-27 08:02:00 GMT", 120)),
        *(("Fri, 15 Jan 2027 07:59:00 GMT", 0), ("Fri, 15 Jan 2027 08:00:00 +" + "9" * 20, 0)),
        ("Sat, 16 Jan 2027 08:00:00 GMT", 3600),
    ],
)
def test_a_wait_that_is_asked_for_is_kept_within_bounds(text: str, seconds: float) -> None:
    assert retry_after(text, "Fri, 15 Jan 2027 08:00:00 GMT") == seconds
    assert retry_after("Fri, 31 Dec 9999 23:59:59 GMT", None) == 3600


def test_waits_double_up_to_the_longest_and_are_at_random() -> None:
    for failures, longest in ((1, 1), (2, 2), (5, 16), (12, 300), (5000, 300)):
        waits = [next_wait(failures, 0.0) for _ in range(200)]
        assert longest / 2 < max(waits) <= longest
        assert min(waits) < longest / 2
    assert next_wait(1, 77.0) == 77


def test_an_entry_of_another_journal_has_another_name() -> None:
    first = entry()
    other = JournalEntry("status", "later", wall=NOW + 1, cursor=7)
    assert pack_event(first).delivery == "7-1800000000000"
    assert pack_event(other).delivery != "7-1800000000000"


def test_an_event_with_a_number_that_json_lacks_is_sent_without_its_detail() -> None:
    assert json.loads(pack_event(entry(share=float("nan"))).body, parse_constant=pytest.fail)
