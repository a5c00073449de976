"""The real browser, the unmodified bundle, the stand-in page; skipped where they cannot be had."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.engines.web.browser.process import find_browser
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from tests.engines.web.bench import ROOT, Bench
from tests.lacking import lacks
from tests.standin.web.stand_in import StandIn


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where the bundle is; it is fetched once and kept outside of what is committed."""
    told = os.environ.get("WA_CACHE_PATH")
    path = Path(told) if told else ROOT / ".cache"
    try:
        fetch_bundle(path)
    except EngineError as error:
        lacks(str(error))
    return path


@pytest.fixture(scope="session")
def browser() -> None:
    try:
        find_browser("headless-shell", os.environ.get("WA_BROWSER", ""))
    except ConfigError as error:
        lacks(str(error))


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    found = await StandIn.open(qr_every=30, alive_every=0.5)
    yield found
    await found.close()


@pytest.fixture
async def bench(
    tmp_path: Path, cache: Path, browser: None, stand_in: StandIn
) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, cache, stand_in.url)
    yield made
    await made.clean_up()
