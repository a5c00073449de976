"""[messages]: from agent.toml into the file of each session, and from there into its worker."""

from pathlib import Path
from typing import Any

import pytest

from agent.config import load_config, render_config
from agent.config.wing_tables import worker_settings
from agent.errors import ConfigError
from agent.wings.messages.out.limits import limits_of, pace_of
from tests.wings.messages.conftest import KeepingBench
from tests.wings.messages.spools import numbers_of


def load(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    return load_config(file, env={})


def test_only_what_is_not_usual_goes_to_a_worker(tmp_path: Path) -> None:
    assert worker_settings(load(tmp_path, "")) == {}
    assert worker_settings(load(tmp_path, "[messages]\nhours = 72\nkeep = true\n")) == {}
    assert worker_settings(load(tmp_path, "[messages]\nkeep = false\nhours = 1\n")) == {
        "messages": {"keep": False, "hours": 1.0}
    }
    assert worker_settings(load(tmp_path, "[messages]\noutbox_most = 7\n")) == {}


def test_the_pace_is_a_table_of_its_own_and_goes_to_no_worker(tmp_path: Path) -> None:
    text = "[messages]\nhours = 1\n[messages.pace]\nper_minute = 20\nnew_people = 5\n"
    config = load(tmp_path, text)
    assert (pace_of(config).per_minute, pace_of(config).new_people) == (20.0, 5)
    assert limits_of(config).hours == 1.0
    assert worker_settings(config) == {"messages": {"hours": 1.0}}
    again = load(tmp_path, render_config(config))
    assert pace_of(again) == pace_of(config) and limits_of(again) == limits_of(config)
    off = pace_of(load(tmp_path, ""))
    assert not (off.per_minute or off.young_days or off.new_people)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[messages]\nhours = 0", "messages.hours"),
        ('[messages]\nkeep = "no"', "messages.keep"),
        ("[messages]\ndays = 3", "messages.days"),
        ("[messages.pace]\nper_minute = -1", "messages.pace.per_minute"),
        ("[messages]\npace = 3", "messages.pace"),
        ("messages = 3", "messages"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text + "\n")
    assert key in str(caught.value)


async def test_a_session_that_keeps_nothing_makes_no_file(keeping: KeepingBench) -> None:
    keeping.identity(settings=keeping.quick, of_wings={"messages": {"keep": False}})
    keeping.start(identity=False)
    await keeping.linked()
    await keeping.arrive(1)
    state = await keeping.link.call("messages_state")
    assert (state["keeps"], state["bytes"]) == (False, 0)
    assert (await keeping.page())["records"] == []
    assert not (keeping.folder / "messages").exists()


async def test_a_session_keeps_as_many_as_it_is_told(keeping: KeepingBench) -> None:
    keeping.identity(settings=keeping.quick, of_wings={"messages": {"most": 100, "hours": "x"}})
    keeping.start(identity=False)
    await keeping.linked()
    for first in range(0, 300, 10):
        await keeping.arrive(first, 10)
    found = numbers_of((await keeping.page(limit=1000))["records"])
    assert found[-1] == 299 and found[0] < 0 and 90 <= len(found) <= 101
