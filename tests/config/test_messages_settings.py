"""[messages]: from agent.toml into the file of each session, and from there into its worker."""

from pathlib import Path
from typing import Any

from agent.config.config import render_config, worker_settings
from agent.config.load import load_config
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
    config = load(tmp_path, "[messages]\nhours = 1\n[messages.pace]\nper_minute = 20\n")
    messages, pace = (table.rows(config)[0] for table in (MESSAGES, PACE))
    assert (pace.per_minute, messages.hours) == (20.0, 1.0)
    assert worker_settings(config) == {"messages": {"hours": 1.0}}
    again = load(tmp_path, render_config(config))
    assert [table.rows(again)[0] for table in (MESSAGES, PACE)] == [messages, pace]
    assert PACE.rows(load(tmp_path, ""))[0].per_minute == 0
