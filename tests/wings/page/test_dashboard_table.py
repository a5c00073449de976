"""The dashboard with many sessions: what fits a screen, and what lies on top of what."""

from collections.abc import Callable

import pytest

from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.wings.page.browsing import check_manners, listening, make_agent, picture, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

TRUSTED = "\n[api]\ntrust_loopback = true\n"
QUEUED = SETTINGS.replace("login_every = 0", "logins = 1\nlogin_every = 3600")
"""One session starts; the others wait for their turn."""
MANY = 64
LIVE = "document.querySelector('#live').textContent === 'Live'"
ROWS = f"document.querySelectorAll('tbody tr').length === {MANY}"
WIDE = "document.documentElement.scrollWidth"
BOX = "document.querySelector('.table-scroll')"


@pytest.fixture
async def many(listening: Callable[..., RunningAgent], watcher: Watcher) -> RunningAgent:
    """Sessions with long names and sentences, all but one in the queue."""
    agent = listening(TRUSTED, base=QUEUED)
    await agent.start()
    for number in range(MANY):
        await agent.create(f"a-session-with-a-rather-long-name-{number:02}")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(LIVE)
    return agent


async def test_the_table_fits_the_screen_and_its_rows_are_low(
    many: RunningAgent, watcher: Watcher
) -> None:
    await watcher.until(ROWS)
    for width, least in ((1280, 1200), (1920, 1800)):
        await watcher.size(width, 1080)
        await watcher.until(f"innerWidth === {width}")
        assert await watcher.run(f"{BOX}.scrollWidth <= {BOX}.clientWidth"), width
        assert await watcher.run(f"{BOX}.clientWidth") > least, "a wide screen is used"
        dots = "document.querySelector('tbody tr .dots').getBoundingClientRect().right"
        assert await watcher.run(dots) < width
        await picture(watcher, f"table-{width}")
    heights = "[...document.querySelectorAll('tbody tr')].map((row) => row.offsetHeight)"
    assert max(await watcher.run(heights)) <= 44
    await watcher.size(900, 800)
    await watcher.until("innerWidth === 900")
    assert await watcher.run(f"{BOX}.scrollWidth > {BOX}.clientWidth"), "here it scrolls"
    assert await watcher.run(WIDE) <= 900
    assert await watcher.run(
        "(() => { const e = document.querySelector('tbody tr .dots');"
        " e.scrollIntoView({block: 'center', inline: 'nearest'});"
        f" {BOX}.scrollLeft = 0;"
        " const r = e.getBoundingClientRect();"
        " return e.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2)); })()"
    ), "the last column stays in sight"
    await check_manners(watcher, many)


async def test_an_open_menu_lies_over_the_rows_below_and_takes_its_own_clicks(
    many: RunningAgent, watcher: Watcher
) -> None:
    await watcher.size(1280, 1080)
    await watcher.until(ROWS)
    await watcher.click("tbody tr:nth-child(2) .dots")
    await watcher.until("document.querySelector('.menu:popover-open')")
    covered = (
        "[...document.querySelectorAll('.menu [data-do]')].filter((e) => {"
        " const r = e.getBoundingClientRect(), all = e.parentElement.getBoundingClientRect();"
        " if (r.y + r.height / 2 > all.bottom - 8) return false;"  # scrolled to by who wants it
        " return [r.x + 8, r.x + r.width / 2, r.right - 8].some((x) =>"
        " !e.contains(document.elementFromPoint(x, r.y + r.height / 2))); }).length"
    )
    assert await watcher.run("document.querySelectorAll('.menu [data-do]').length") >= 3
    assert await watcher.run(covered) == 0
    await picture(watcher, "table-menu")
    await watcher.press("Escape", 27)
    assert not await watcher.run("document.querySelector('.menu')")


async def test_who_waits_for_a_turn_says_so_with_its_place_and_nothing_on_the_page_moves(
    many: RunningAgent, watcher: Watcher
) -> None:
    await watcher.until(ROWS)
    words = "[...document.querySelectorAll('tbody tr .pill.wait')].map((e) => e.textContent)"
    await watcher.until(f"{words}.length >= {MANY - 2}")
    assert set(await watcher.run(words)) == {"Waits for its turn"}
    why = "[...document.querySelectorAll('tbody td.cell-why')].map((e) => e.textContent)"
    said = await watcher.run(why)
    assert "20 sessions start before it" in said
    assert "it is the next to start" in said
    running = "document.getAnimations().filter((e) => e.effect.getTiming().iterations > 10).length"
    assert await watcher.run(running) == 0


async def test_on_a_phone_many_sessions_are_cards_and_nothing_is_wider_than_the_screen(
    many: RunningAgent, watcher: Watcher
) -> None:
    await watcher.size(390, 844, phone=True)
    await watcher.until("document.querySelectorAll('.cards .card').length === 15")
    assert not await watcher.run("document.querySelector('.table-place').checkVisibility()")
    assert await watcher.run(WIDE) <= 390
    stories = "document.querySelectorAll('#overview .story-entry').length <= 15"
    await watcher.until(stories)
    await picture(watcher, "phone-many")
    assert await watcher.run("document.documentElement.scrollHeight") < 9000
