"""A session of another program as Baileys' keys, and whether it can be moved."""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, ValidationError, convert, defstruct

from agent.engines.baileys.files import FILE_NAME, KEY_KINDS, PRE_KEY, lacks_pre_keys, linked_of
from agent.errors import Refused
from agent.vault.archives import FoundSession

Keys = Mapping[str, bytes]
"""By Baileys' own names ("creds", "pre-key-7", "session-…"): JSON text."""

CREDS = "creds"
_Buffer = defstruct("_Buffer", [("data", Annotated[str, Meta(pattern="^[\\w+/]{43}[\\w+/=]$")])])
_Pair = defstruct("_Pair", [("private", _Buffer), ("public", _Buffer)])
_Number = Annotated[int, Meta(ge=0, lt=2**31)]
_CREDS: list[Any] = [
    *(("noiseKey", _Pair), ("signedIdentityKey", _Pair)),
    ("signedPreKey", defstruct("_SignedPreKey", [("keyPair", _Pair)])),
    *(("registrationId", _Number), ("advSecretKey", str), ("nextPreKeyId", _Number, 1)),
    ("account", dict[str, Any] | None, None),
]
"""Keys of 32 or 33 bytes; 0 is a registrationId: Baileys draws it from 256 values."""
_Creds = defstruct("_Creds", _CREDS)


def look_at(
    program: str, name: str, read: Callable[[], Keys], *, written: float | None, in_use: str = ""
) -> FoundSession:
    """Read a session and judge it. `in_use`: why its program may still run."""
    found = FoundSession(program, name, written=written, in_use=in_use)
    try:
        keys, left_out = _usable(read())
        creds = _creds(keys)
    except Refused as error:
        return replace(found, problem=str(error), code=error.code or "no_session")
    except FileNotFoundError:
        problem = "it changes while it is read: stop its program"
        return replace(found, problem=problem, code="in_use")
    except Exception as error:
        cause = getattr(error, "strerror", "") or type(error).__name__  # the text may quote a key
        return replace(found, problem=f"it cannot be read: {cause}", code="unreadable")
    problem, code = _problem(creds, keys)
    linked = linked_of(creds)
    pre_keys = sum(key.startswith(PRE_KEY) for key in keys)
    found = replace(found, account=linked.account, device=linked.device, left_out=left_out)
    found = replace(found, pre_keys=pre_keys, records=len(keys), keys=keys)
    return replace(found, problem=problem, code=code)


def _usable(raw: Keys) -> tuple[dict[str, bytes], Counter[str]]:
    """The keys that can be carried over, and how many of each kind cannot. A contact chooses what
    its records are called and hold: they never keep the pairing from moving."""
    files = Counter(file_name(key) for key in raw if kind_of(key))
    keys: dict[str, bytes] = {}
    left_out: Counter[str] = Counter()
    for key, value in raw.items():
        if not (kind := kind_of(key)):
            continue
        try:
            if not file_name(key) or files[file_name(key)] > 1:
                raise Refused("no file can hold it alone")
            keys[key] = _normal(key, value)
        except Refused:
            if key == CREDS:
                raise
            left_out[kind] += 1
    return keys, left_out


def kind_of(key: str) -> str:
    """ "session", "pre-key", ...; "" for what is none of Baileys' keys."""
    known = re.match(KEY_KINDS, key, re.DOTALL)
    return str(known[1] or (key == CREDS and CREDS) or "") if known else ""


def file_name(key: str) -> str:
    """As the library names it; "" for what no file of the engine's is called."""
    name = key.replace("/", "__").replace(":", "-") + ".json"
    return name if re.fullmatch(FILE_NAME, name) else ""


def without_twins(sessions: Sequence[FoundSession]) -> list[FoundSession]:
    """Of copies of one device none is chosen: a person knows which one is the newest."""

    def judged(session: FoundSession) -> FoundSession:
        for other in sessions:
            same = session.device and other.device == session.device and other is not session
            if same and other.code in ("", "in_use") and not session.problem:
                problem = f"{other.name} is the same linked device, and two programs with one end"
                problem += " each other's connections; import the newest of them alone, by --only"
                return replace(session, problem=problem, code="same_device")
        return session

    return [judged(session) for session in sessions]


def _creds(keys: Keys) -> dict[str, Any]:
    if CREDS not in keys:
        raise Refused("it holds no credentials (creds)", code="no_session")
    creds: dict[str, Any] = json.loads(keys[CREDS])
    return creds


def _problem(creds: Mapping[str, Any], keys: Keys) -> tuple[str, str]:
    if not linked_of(creds).account:
        return "its credentials name no account: it was never paired", "not_paired"
    if creds.get("pairingCode") and not creds.get("account"):
        return "a pairing code was asked for, and no phone took it", "not_paired"
    try:
        convert(creds, _Creds)
    except ValidationError as error:
        return f"its credentials are not as Baileys writes them: {error}", "incomplete"
    lacking = lacks_pre_keys(keys)
    return lacking, "no_pre_keys" if lacking else ""


def _normal(key: str, raw: bytes) -> bytes:
    try:
        value = json.loads(raw, object_hook=_with_buffer)
        if value is None:
            raise ValueError("null is no record")
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        words = f"its {key} is damaged: no JSON, or a link, and no link is followed"
        raise Refused(words, code="damaged") from error


def _with_buffer(value: dict[str, Any]) -> dict[str, Any]:
    """A Buffer as Baileys 7 reads it: base64. Some programs write its bytes as numbers."""
    data = value.get("data", value.get("value"))
    if value.get("type") != "Buffer" and value.get("buffer") is not True:
        return value
    if isinstance(data, list) and all(type(number) is int for number in data):
        data = base64.b64encode(bytes(data)).decode()
    return {"type": "Buffer", "data": data}


def write_folder(session: FoundSession, folder: Path) -> None:
    """Each key as a file in an empty folder."""
    for key, value in session.keys.items():
        with (folder / file_name(key)).open("xb") as file:
            file.write(value)
