"""The settings of a toy's backend."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent.core.setting import setting
from agent.engines.remote.declaration import BackendDeclaration, Fault


@dataclass(frozen=True, slots=True)
class BackendSettings:
    port: int = setting(0, "port of the toy's server", low=0, high=65_535)
    colour: str = setting("red", "colour of the toy", choices=("red", "blue"))


def find_faults(backend: BackendDeclaration) -> Iterator[Fault]:
    if not backend.own.port:
        yield ("port",), "a toy needs a port"
