"""A session of another program as Baileys' keys, and what it is worth before it is moved."""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from agent.engines.baileys.files import FILE_NAME, KEY_KINDS, PRE_KEY, lacks_pre_keys, linked_of
from agent.errors import Refused
from agent.vault.archives.found import FoundSession

Keys = Mapping[str, bytes]
"""By Baileys' own names ("creds", "pre-key-7", "session-…"): JSON text."""

CREDS = "creds"
_NEEDED = ("noiseKey", "signedIdentityKey", "signedPreKey", "registrationId", "advSecretKey")


def look_at(
    program: str, name: str, read: Callable[[], Keys], *, written: float | None, in_use: str = ""
) -> FoundSession:
    """Read a session and say what it is worth. `in_use`: why its program may still run."""
    try:
        keys, left_out = _sorted_out(read())
        creds = _creds(keys)
    except Refused as error:
        code = error.code or "no_session"
        return FoundSession(
            program, name, written=written, problem=str(error), code=code, in_use=in_use
        )
    except Exception as error:
        return unreadable(program, name, error)
    pre_keys = sum(key.startswith(PRE_KEY) for key in keys)
    problem, code = _problem(creds, keys)
    linked = linked_of(creds)
    return FoundSession(
        program=program,
        name=name,
        account=linked.account,
        device=linked.device,
        written=written,
        pre_keys=pre_keys,
        records=len(keys),
        problem=problem,
        code=code,
        left_out=left_out,
        in_use=in_use,
        keys=keys,
    )


def _sorted_out(raw: Keys) -> tuple[dict[str, bytes], Counter[str]]:
    """The keys that can be carried over, and how many of each kind cannot. A contact chooses what
    its records are called and hold: they never keep the pairing from moving."""
    files = Counter(file_name(key) for key in raw if kind_of(key))
    keys: dict[str, bytes] = {}
    left_out: Counter[str] = Counter()
    for key, value in raw.items():
        kind, file = kind_of(key), file_name(key)
        if key == CREDS:
            keys[key] = normal(key, value)
        elif kind:
            try:
                if not file or files[file] > 1:
                    raise Refused("no file can hold it alone")
                keys[key] = normal(key, value)
            except Refused:
                left_out[kind] += 1
    return keys, left_out


def kind_of(key: str) -> str:
    """ "session", "pre-key", ...; "" for what is none of Baileys' keys."""
    known = re.match(KEY_KINDS, key, re.DOTALL)
    return str(known[1] or (key == CREDS and CREDS) or "") if known else ""


def unreadable(program: str, name: str, error: Exception) -> FoundSession:
    if isinstance(error, FileNotFoundError):
        sentence, code = "it changes while it is read: stop its program", "in_use"
        return FoundSession(program, name, problem=sentence, code=code)
    cause = getattr(error, "strerror", "") or type(error).__name__  # the text may quote a key
    sentence = f"it cannot be read: {cause}"
    return FoundSession(program, name, problem=sentence, code="unreadable")


def without_twins(sessions: Sequence[FoundSession]) -> list[FoundSession]:
    """Of copies of one device none is chosen: a person knows which one is the newest."""
    checked = []
    for session in sessions:
        twins = [
            other.name
            for other in sessions
            if other is not session
            and session.device
            and other.device == session.device
            and other.code in ("", "in_use")
        ]
        if twins and not session.problem:
            problem = (
                f"{twins[0]} is the same linked device, and two programs with one device end each"
                " other's connections; import the newest of them alone, by --only or its own folder"
            )
            session = replace(session, problem=problem, code="same_device")
        checked.append(session)
    return checked


def _problem(creds: Mapping[str, Any], keys: Keys) -> tuple[str, str]:
    if not linked_of(creds).account:
        return "its credentials name no account: it was never paired", "not_paired"
    if creds.get("pairingCode") and not creds.get("account"):
        return "a pairing code was asked for, and no phone took it", "not_paired"
    # 0 is a registrationId: Baileys draws it from 256 values.
    if missing := [name for name in _NEEDED if creds.get(name) in (None, "", {}, [])]:
        return f"its credentials lack {', '.join(missing)}", "incomplete"
    if lacking := lacks_pre_keys(keys):
        return lacking, "no_pre_keys"
    return "", ""


def _creds(keys: Keys) -> dict[str, Any]:
    if CREDS not in keys:
        raise Refused("it holds no credentials (creds)", code="no_session")
    creds = json.loads(keys[CREDS])
    if not isinstance(creds, dict):
        raise Refused("its credentials are no JSON object", code="damaged")
    return creds


def normal(name: str, raw: bytes) -> bytes:
    """The value with every binary field as Baileys 7 reads it: base64 in `{"type": "Buffer"}`.
    Older versions and some stores wrote a Buffer's bytes as numbers."""
    try:
        value = _with_buffers(json.loads(raw, parse_constant=_no_constant))
        if value is None:
            raise ValueError("null is no record")
        return json.dumps(value, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(f"its {name} is damaged: no JSON", code="damaged") from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _with_buffers(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_buffers(item) for item in value]
    if not isinstance(value, dict):
        return value
    data = value.get("data", value.get("value"))
    if value.get("type") == "Buffer" or value.get("buffer") is True:
        if isinstance(data, str):
            return {"type": "Buffer", "data": data}
        if _are_bytes(data):
            return buffer(bytes(data))
    numbers = list(value.values())
    if list(value) == [str(place) for place in range(len(value))] and _are_bytes(numbers):
        return buffer(bytes(numbers))
    return {key: _with_buffers(item) for key, item in value.items()}


def _are_bytes(numbers: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(numbers, list)
        and len(numbers) > 0
        and all(type(number) is int and 0 <= number < 256 for number in numbers)
    )


def buffer(content: bytes) -> dict[str, str]:
    """Bytes as Baileys' BufferJSON writes them."""
    return {"type": "Buffer", "data": base64.b64encode(content).decode()}


def file_name(key: str) -> str:
    """As the library names it; "" for what no file of the engine's is called."""
    name = key.replace("/", "__").replace(":", "-") + ".json"
    return name if re.fullmatch(FILE_NAME, name) else ""


def write_folder(session: FoundSession, folder: Path) -> None:
    """Into an empty folder; the credentials last, so that half a copy is no session."""
    for key in sorted(session.keys, key=lambda key: (key == CREDS, key)):
        with (folder / file_name(key)).open("xb") as file:
            file.write(session.keys[key])
