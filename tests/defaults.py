"""Defaults that no setting changes, for tests of a real agent that cannot wait for them."""

import inspect
from typing import Any


def change(kind: type, **values: Any) -> None:
    made: Any = kind.__init__  # type: ignore[misc]
    names = inspect.getfullargspec(made).args[1:]
    made.__defaults__ = tuple(
        values.pop(name, old) for name, old in zip(names, made.__defaults__, strict=True)
    )
    assert not values, values


def changed(path: str, **values: Any) -> str:
    """For `RunningAgent.first`: `path` is MODULE.CLASS."""
    module, _, name = path.rpartition(".")
    words = ", ".join(f"{key}={value!r}" for key, value in values.items())
    return (
        f"from tests.defaults import change; from {module} import {name}; change({name}, {words})"
    )
