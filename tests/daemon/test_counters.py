"""Counters over restarts and kills of the agent: what Prometheus adds up is what happened."""

import itertools
import time

from prometheus_client.parser import text_string_to_metric_families

COUNTED = "wa_session_status_seconds_total"


async def scrape(agent):
    """Every counter of session "a", and between which moments it was read, by a clock that does
    not jump."""
    asked = time.monotonic()
    text = await agent.do("GET", "/metrics")
    answered = time.monotonic()
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.type == "counter" and sample.labels.get("session") == "a"
    }
    return (asked, answered), found


def increases(scrapes):
    """As Prometheus adds: a value that fell is one that began at 0."""
    total = {}
    for (_, before), (_, after) in itertools.pairwise(scrapes):
        for key, value in after.items():
            old = before.get(key, 0.0)
            total[key] = total.get(key, 0.0) + (value - old if value >= old else value)
    return total


def in_status(increase):
    return sum(value for (name, _), value in increase.items() if name == COUNTED)


async def test_restarts_and_kills_add_no_second_to_the_time_in_each_status(agent, eventually):
    """Else each start adds the whole time since the last change of status, once more."""
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "drop", 0.2)
    await eventually(lambda: agent.status("a"), "CONNECTED")

    async def two_seconds_counted():
        _, found = await scrape(agent)
        return sum(value for (name, _), value in found.items() if name == COUNTED) >= 2.0

    await eventually(two_seconds_counted)
    scrapes, down = [await scrape(agent)], 0.0
    for end in (agent.kill, agent.stop, agent.kill, agent.stop):
        scrapes.append(await scrape(agent))
        await end()
        await agent.start()
        await eventually(lambda: agent.status("a"), "CONNECTED")
        scrapes.append(await scrape(agent))
        # From one scrape to the other; how much of it was counted depends on the end.
        down += scrapes[-1][0][1] - scrapes[-2][0][0]
    (first_asked, first_answered), (last_asked, last_answered) = scrapes[0][0], scrapes[-1][0]
    counted = in_status(increases(scrapes))
    most, least = last_answered - first_asked, last_asked - first_answered - down
    assert least - 0.5 <= counted <= most + 0.05, (least, counted, most)


async def test_after_an_orderly_restart_no_counter_is_smaller_than_before(agent, eventually):
    await agent.create("a", messages_per_minute=600)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    await agent.fault("a", "drop", 0.2)

    async def reconnected():
        return (await agent.show("a"))["reconnects_by_reason"] != {}

    await eventually(reconnected)
    _, before = await scrape(agent)
    await agent.stop()
    await agent.start()
    _, after = await scrape(agent)
    # The worker's own processor time begins with each worker, and is there once it was measured.
    before = {key: value for key, value in before.items() if "_cpu_" not in key[0]}
    assert len(before) > 50
    fell = {key: (value, after[key]) for key, value in before.items() if after[key] < value}
    assert fell == {}
    assert sum(value for (name, _), value in after.items() if name.endswith("reconnects_total"))


async def test_after_a_kill_every_counter_begins_at_0_and_not_at_an_older_value(agent, eventually):
    """An older value is a fall that Prometheus would add up in full."""
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")

    async def losses():
        return sum((await agent.show("a"))["errors"].values())

    async def lose(times):
        await agent.fault("a", "drop", 0.2)
        await eventually(losses, times)
        await eventually(lambda: agent.status("a"), "CONNECTED")

    async def since():
        return (await agent.do("GET", "/api/instance/a/details"))["counted_since"]

    await lose(1)
    begun = await since()
    await agent.stop()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await losses() == 1, "an orderly restart carries it on"
    assert await since() == begun
    await lose(2)
    await agent.kill()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await losses() == 0, "neither 2, which is lost, nor 1, which would be a fall"
    assert await since() > begun, "it says since when it counts"
