"""What an agent carries of wings that its settings do not use."""

import subprocess
import sys
from functools import cache

from agent.wing import wings

AGENT = """
import sys
import agent.daemon.main
from agent.api.routes import ROUTES
from agent.config.tables import brought
from agent.wing import wings
brought(), [wing.take(wing.part) for wing in wings() if wing.part]
shown = ("agent.wings.", "agent.moving.", "agent.webhooks.", "agent.engines.web", "tarfile")
there = {name for name, module in sys.modules.items() if type(module).__name__ != "_Unloaded"}
print(*(name for name in there if name.startswith(shown)))
"""


@cache
def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", AGENT], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_an_agent_carries_no_module_that_only_commands_use() -> None:
    found = loaded()
    for wing in wings():
        of_commands = {*wing.commands, wing.doctor} - {""}
        package = wing.package or f"agent.wings.{wing.name}"
        assert not {f"{package}.{module}" for module in of_commands} & found
    room = {name for name in found if name.startswith("agent.moving.")}
    assert room == {f"agent.moving.{module}" for module in ("archives", "programs", "routes")}


def test_an_agent_without_webhooks_carries_nothing_that_sends_them() -> None:
    found = loaded()
    assert "agent.webhooks.part" in found
    assert not {"agent.webhooks.courier", "agent.webhooks.post"} & found


def test_an_agent_without_a_web_session_carries_no_part_of_that_engine() -> None:
    assert not [name for name in loaded() if name.startswith("agent.engines.web.")]


def test_an_agent_that_never_packed_a_session_carries_nothing_that_reads_archives() -> None:
    assert "tarfile" not in loaded()
