"""Which kind of server a declared backend is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import BackendDeclaration
from agent.core.findings.crypto_patterns import CryptoPattern
from agent.core.model import Happening

if TYPE_CHECKING:
    from agent.backends.server import ServerApi


def open_api(
    declared: BackendDeclaration,
    folder: Path,
    happened: Callable[[str, Happening], None],
    patterns: Sequence[CryptoPattern],
) -> "ServerApi":
    """`declared`: with its key. `folder`: for what is kept here. `happened`: called with the
    server's name of a session. `patterns`: of lines that tell of broken keys, beside the usual."""
    if declared.engine == "evolution":
        from agent.backends.evolution import Evolution

        return Evolution(declared, folder)
    from agent.backends.whaticket.api import Whaticket

    return Whaticket(declared, folder, happened, patterns=patterns)
