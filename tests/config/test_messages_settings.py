"""[messages]: from agent.toml into the file of each session, and from there into its worker."""

from pathlib import Path
from typing import Any

import pytest

from agent.config.load import load_config
from agent.config.render import render_config
from agent.config.tables import own_row, worker_settings
from agent.errors import ConfigError
from agent.messages.settings import MESSAGES, PACE


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
    text = "[messages]\nhours = 1\n[messages.pace]\nper_minute = 20\n"
    config = load(tmp_path, text)
    messages, pace = (own_row(config, table) for table in (MESSAGES, PACE))
    assert (pace.per_minute, messages.hours) == (20.0, 1.0)
    assert worker_settings(config) == {"messages": {"hours": 1.0}}
    again = load(tmp_path, render_config(config))
    assert [own_row(again, table) for table in (MESSAGES, PACE)] == [messages, pace]
    assert own_row(load(tmp_path, ""), PACE).per_minute == 0


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
