"""[messages.pace]: never more than it says in any minute or day, whatever the clocks do; and no
chat waits for another one's many messages."""

import random
from dataclasses import replace

import pytest

from agent.wings.messages.out.session.pace import DAY, Moment, first_in, pause_of, use
from agent.wings.messages.out.session.queue import SessionQueue, Waiting
from agent.wings.messages.settings import PaceSettings

OFF = PaceSettings()
YOUNG = PaceSettings(per_minute=30, young_days=10, young_per_minute=2)


@pytest.mark.parametrize(
    ("rules", "days", "pause"),
    [
        pytest.param(OFF, 0.0, 0.0, id="off"),
        pytest.param(YOUNG, 0.0, 30.0, id="just paired"),
        pytest.param(YOUNG, 5.0, 16.0, id="half way"),
        pytest.param(YOUNG, -3.0, 30.0, id="paired in the future: the clock was set back"),
        pytest.param(replace(YOUNG, per_minute=0), 5.0, 15.0, id="no limit when it is old"),
        pytest.param(replace(YOUNG, per_minute=1), 0.0, 60.0, id="young is never faster"),
    ],
)
def test_the_pause_between_two_messages(rules: PaceSettings, days: float, pause: float) -> None:
    assert pause_of(rules, days * DAY) == pytest.approx(pause)


@pytest.mark.parametrize("seed", range(3))
def test_no_minute_has_more_messages_than_it_may_whatever_the_wall_clock_does(seed: int) -> None:
    """What was used is all that is known of the past. The wall's clock jumps."""
    chance = random.Random(seed)
    rules = PaceSettings(per_minute=chance.choice([1, 7, 20, 300]), jitter=chance.choice([0, 0.5]))
    at, wall, used, sent = 100.0, 1e9, None, []
    for _ in range(3000):
        at += (step := chance.expovariate(rules.per_minute / 30))
        wall += step + (chance.uniform(-1e6, 1e6) if chance.random() < 0.02 else 0.0)
        now = Moment("one boot", at, wall)
        if used is None or used.left(now) <= 0:
            used = use(rules, 0.0, now, chance.random())
            sent.append(at)
    for first, last in zip(sent, sent[int(rules.per_minute) :], strict=False):
        assert last - first > 60.0 - 1e-6
    assert len(sent) > 100


@pytest.mark.parametrize(
    ("most", "hours_ago", "left"),
    [
        pytest.param(0, [1, 2, 3], 0.0, id="off"),
        pytest.param(3, [1, 2, 20], 4.0, id="the third is 20 hours old"),
        pytest.param(3, [1, 2, 25], 0.0, id="one is of yesterday"),
        pytest.param(2, [1, 2, 20], 22.0, id="the limit was lowered"),
    ],
)
def test_how_long_a_new_person_waits(most: int, hours_ago: list[float], left: float) -> None:
    now = Moment("x", 1e6, 1e9)
    firsts = [Moment("x", 1e6 - 3600 * h, 5.0) for h in hours_ago]
    rules = PaceSettings(new_people=most)
    assert first_in(rules, firsts, now) == pytest.approx(left * 3600)


@pytest.mark.parametrize("seed", range(2))
def test_no_day_has_more_new_people_than_it_may(seed: int) -> None:
    chance, rules = random.Random(seed), PaceSettings(new_people=5)
    at, wall = 0.0, 1e9
    firsts: list[Moment] = []
    for _ in range(2000):
        at += (step := chance.expovariate(1 / 3000))
        wall += step + (chance.uniform(-1e6, 1e6) if chance.random() < 0.02 else 0.0)
        now = Moment("one boot", at, wall)
        if first_in(rules, firsts, now) <= 0:
            firsts.append(now)
    for first, sixth in zip(firsts, firsts[5:], strict=False):
        assert sixth.at - first.at >= DAY - 1e-6
    assert len(firsts) > 50


def waiting(number: int, chat: str, due: float = 0.0) -> Waiting:
    return Waiting(number, f"out_{number}", chat, 1.0, 1.0, 9e9, due, 0, 0, "", False)


@pytest.mark.parametrize("seed", range(2))
def test_every_chat_gets_its_turn_and_keeps_its_order(seed: int) -> None:
    """Messages come, are sent, fail and come back while one goes at a time."""
    chance, queue = random.Random(seed), SessionQueue()
    chats, numbers, now = "abcdefgh", iter(range(100_000)), 0.0
    last: dict[str, int] = {}
    since: dict[str, int] = {}
    for _ in range(3000):
        now += 1.0
        for _ in range(chance.choice([0, 1, 1, 2])):
            chat = "a" if chance.random() < 0.7 else chance.choice(chats)
            queue.add(waiting(next(numbers), chat))
        one = queue.take(now)
        if one is None:
            assert queue.next_due() is None or queue.next_due() > now  # type: ignore[operator]
            continue
        waits = {each.chat for each in queue if each.due <= now}
        since = {chat: since.get(chat, 0) + 1 for chat in waits - {one.chat}}
        assert max(since.values(), default=0) <= 2 * len(chats), "a chat starves"
        assert one.number >= last.get(one.chat, 0)
        last[one.chat] = one.number
        if chance.random() < 0.2:
            queue.put_back(one, now + chance.choice([1.0, 5.0]))
        else:
            queue.remove(one)
    assert len(queue._turns) <= len(chats)
