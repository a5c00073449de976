"""WhatsApp without a browser: the npm package baileys, unmodified, in a Node process."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.engines.baileys.files import lost_store
from agent.engines.base import Reporter

if TYPE_CHECKING:
    from agent.engines.baileys.engine import BaileysEngine

__all__ = ["lost_store", "open_engine"]


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "BaileysEngine":
    # Only here: code that needs the folder's functions does not load the rest.
    from agent.engines.baileys.engine import open_engine as open_it

    return open_it(folder, settings, reporter)
