"""The agent's memory: one SQLite database, one writer thread."""

import sys
from types import ModuleType


class _Click(ModuleType):
    """Stands in for what sqlite_utils imports for a program of its own and never asks for here, 1
    MiB. All but the one name that its import needs comes from the real one."""

    Group = None

    def __getattr__(self, name: str) -> object:
        if sys.modules.get("click") is self:
            del sys.modules["click"]
        return getattr(__import__("click"), name)


sys.modules.setdefault("click", _Click("click"))
# It imports this one for a recipe that reads dates, which is never asked for: 2 MiB.
sys.modules.setdefault("dateutil.parser", ModuleType("dateutil.parser"))
