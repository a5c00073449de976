"""Modules that a library imports for what we never ask of it: loaded by their first use."""

import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class _Unloaded(ModuleType):
    """`import` of it costs nothing. (The standard library's LazyLoader is loaded by the second
    `import` already: that one reads `__spec__`.)"""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def load_when_used(*names: str) -> None:
    """Before the library is imported. A module that is missing or there already is left alone."""
    for name in names:
        spec = None if name in sys.modules else find_spec(name)
        if spec is not None:
            module = sys.modules[name] = module_from_spec(spec)
            module.__class__ = _Unloaded
