"""Reads a body as Evolution does: what it lacks is told in Evolution's words, what it has besides
is passed over."""

from collections.abc import Iterable, Mapping
from typing import Any

from agent.errors import InvalidRequest, WaError

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


class Malformed(WaError):
    """A body without what its route needs."""

    code = "invalid_request"
    http = 400
    exit_status = 2

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("cannot use the body: " + "; ".join(self.faults))


def check(body: Mapping[str, Any], must: Mapping[str, str], may: Mapping[str, str]) -> None:
    """`must` and `may`: names with their types."""
    faults = [
        f"{name} is not of a type(s) {kind}"
        for name, kind in {**must, **may}.items()
        if body.get(name) is not None and not _is(body[name], kind)
    ]
    faults += [f'instance requires property "{name}"' for name in must if body.get(name) is None]
    if faults:
        raise Malformed(faults)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])


def text_of(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def key_in(body: Mapping[str, Any], name: str = "key") -> Mapping[str, Any]:
    """The key of a message: remoteJid, fromMe, id, participant."""
    key = body.get(name)
    if not isinstance(key, Mapping) or not text_of(key, "id"):
        raise InvalidRequest(f"cannot use the field '{name}': it needs an id", field=name)
    return key
