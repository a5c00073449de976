"""Sessions on a whaticket-like server: Baileys behind a REST interface, its logs and its keys.

Such a server has no request that asks WhatsApp through a session without sending a message: that
a session is connected rests on the server's word, on its logs, and on nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.engines.base import BackendReporter
    from agent.engines.whaticket.backend import WhaticketBackend

__all__ = ["open_backend"]


def open_backend(
    folder: Path, settings: Mapping[str, Any], reporter: "BackendReporter"
) -> "WhaticketBackend":
    """Imports what it needs only here: `repair_once` runs where no library is installed."""
    from agent.engines.whaticket import backend

    return backend.open_backend(folder, settings, reporter)
