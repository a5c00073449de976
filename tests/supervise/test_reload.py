"""Settings that a reload may change are read when they are needed, never kept from the start."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.config.config import Config, sections
from agent.core.setting import settings_of
from agent.deliver.bus import EventBus
from agent.supervise.assemble import Supervisor
from agent.supervise.passes import Wakes


class Watched:
    """A section that notes which of its keys are read."""

    def __init__(self, name: str, section: Any, read: set[str]) -> None:
        self._name, self._section, self._read = name, section, read

    def __getattr__(self, key: str) -> Any:
        self._read.add(f"{self._name}.{key}")
        return getattr(self._section, key)


class QuietHost:
    name, boot = "process", "boot"


def test_nothing_that_a_reload_changes_is_read_when_the_agent_is_put_together():
    config, read, fixed = Config(), set(), set()
    watched = {}
    for name in sections():
        section = getattr(config, name)
        watched[name] = Watched(name, section, read)
        changed = {key.name for key, mark in settings_of(section) if not mark.restart}
        fixed |= {f"{name}.{key.name}" for key in fields(section) if key.name not in changed}
    store = SimpleNamespace(path=Path("agent.db"), history=None)
    config = replace(config, **watched)
    Supervisor(config, store, QuietHost(), EventBus(10), Wakes(), open_packs=None)
    assert read - fixed == set(), "mark it restart=True, or ask the settings when it is needed"
