"""An agent loads no module of a room that its settings do not use."""

import subprocess
import sys
from functools import cache

AGENT = """
import agent.daemon.main, mimetypes, sys
from agent.api.routes import ROUTES
from agent.config.config import all_tables
all_tables(), agent.store.database._schema_after(agent.store.database.MIGRATIONS)
shown = ("agent.cli.", "agent.messages.", "agent.moving.", "agent.webhooks.", "agent.engines.web")
shown += "agent.fleet.", "prometheus_client", "zipfile"
print("types" if mimetypes._db else "", *(name for name in sys.modules if name.startswith(shown)))
"""


@cache
def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", AGENT], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def room(name: str) -> set[str]:
    return {one.removeprefix(name) for one in loaded() if one.startswith(name)}


def test_an_agent_carries_no_module_that_only_commands_or_workers_use() -> None:
    assert not room("agent.cli.")
    assert not {"commands", "intake"} & room("agent.messages.")
    assert room("agent.moving.") == {"archives", "programs", "routes"}


def test_an_agent_without_webhooks_carries_nothing_that_sends_them() -> None:
    assert room("agent.webhooks.") == {"part", "settings"}


def test_an_agent_without_a_fleet_carries_its_settings_and_its_routes() -> None:
    assert room("agent.fleet.") == {"settings", "routes"}


def test_an_agent_without_a_web_session_carries_no_part_of_that_engine() -> None:
    assert not room("agent.engines.web.")


def test_an_agent_carries_no_writer_of_metrics_no_search_for_plugins_and_no_list_of_types() -> None:
    assert not {"prometheus_client", "zipfile", "types"} & loaded()
