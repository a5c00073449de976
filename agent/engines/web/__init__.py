"""WhatsApp Web in one lean headless browser per instance."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.engines.base import Reporter
from agent.engines.web.profile import lost_store

if TYPE_CHECKING:
    from agent.engines.web.engine import WebEngine

__all__ = ["lost_store", "open_engine"]


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "WebEngine":
    # Only here: who needs the bundle's or the profile's functions does not load the rest.
    from agent.engines.web.engine import open_engine as open_it

    return open_it(folder, settings, reporter)
