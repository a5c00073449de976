"""The order in which tests run side by side: each file in one process, the longest file first.

How long each file takes is what the last whole run measured, as `.cache/` keeps it; one that starts
late is what a run waits for at its end.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

FIRST = ("system", "daemon", "engines", "baileys")
"""Rooms of the tests that take longest: they begin first where nothing was measured yet."""
LONGEST = (
    "machine",
    "tests/system/test_package.py",
    "tests/engines/baileys/test_baileys_full_disk.py",
    "tests/daemon/test_baileys.py",
    "tests/engines/baileys/test_baileys_kills.py",
    "tests/engines/baileys/test_baileys_store.py",
    "tests/metrics/test_rules.py",
)
"""Files that took longest in whole runs: they begin before all rooms where nothing was measured
yet, as in every new checkout."""
APART = frozenset({"tests/system/test_package.py"})
"""All that they look at is in machines that they made; the others of tests/system share one."""
MACHINE = "machine"


def room(node: str) -> str:
    """The folder of tests/ that a test stands in; "" for one elsewhere."""
    return node.removeprefix("tests/").rpartition("/")[0].partition("/")[0]


def scope(node: str) -> str:
    """Tests of one scope run in one process, one after the other."""
    file = node.split("::", maxsplit=1)[0]
    return MACHINE if room(node) == "system" and file not in APART else file


def measured(root: Path) -> Path:
    return root / ".cache/tests-seconds.json"


def remembered(root: Path) -> dict[str, float]:
    """Seconds by scope; nothing where no whole run has ended in this checkout."""
    try:
        return dict(json.loads(measured(root).read_text()))
    except (OSError, ValueError):
        return {}


def remember(config: pytest.Config, seconds: Mapping[str, float]) -> None:
    """Only of a whole run: what a part of a file takes says nothing of the file."""
    option = config.option
    chosen = option.keyword or option.markexpr or getattr(option, "lf", False)
    if not chosen and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        file = measured(config.rootpath)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({name: round(took, 1) for name, took in seconds.items()}))


class Order:
    """Registered by conftest.py, in the process that starts the others as well."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """All processes get the same figures: they must agree on one order."""
        node.workerinput["seconds"] = remembered(node.config.rootpath)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Producer) -> "TogetherByFile":
        return TogetherByFile(config, log)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Only where tests run side by side, or they stay in the order of their names."""
        if hasattr(config, "workerinput"):
            seconds = config.workerinput["seconds"]
            items.sort(key=lambda item: place(item.nodeid, seconds))


def place(node: str, seconds: Mapping[str, float]) -> tuple[float, int]:
    """The longest first; a file that was not there yet may be as long as any."""
    first = (*LONGEST, *FIRST)
    ranks = (first.index(it) for it in (scope(node), room(node)) if it in first)
    return -seconds.get(scope(node), math.inf), min(ranks, default=len(first))


class TogetherByFile(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)
