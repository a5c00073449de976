"""Modules that a library imports for what we never ask of it: loaded by their first use."""

import sys
import threading
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_turn = threading.RLock()
_begun: set[str] = set()


class _Unloaded(ModuleType):
    """`import` of it costs nothing. (The standard library's LazyLoader is loaded by the second
    `import` already: that one reads `__spec__`.)"""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        # Another thread waits for the whole module; its own code may look at it half-made.
        with _turn:
            if spec.name not in _begun:
                _begun.add(spec.name)
                spec.loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]
            return ModuleType.__getattribute__(self, name)


def load_when_used(*names: str) -> None:
    """Before the library is imported. A module that is missing or there already is left alone."""
    for name in names:
        spec = None if name in sys.modules else find_spec(name)
        if spec is not None:
            module = sys.modules[name] = module_from_spec(spec)
            module.__class__ = _Unloaded
