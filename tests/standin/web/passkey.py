"""Checks that a page's answer comes from an authenticator that verified its person. The signature
is not checked: the stand-in has no public keys."""

import base64
import json
from collections.abc import Mapping
from typing import Any

_PRESENT, _VERIFIED = 0x01, 0x04
_FLAGS_AT = 32


def is_answer(raw: Mapping[str, Any], challenge: bytes) -> bool:
    try:
        client = json.loads(base64.b64decode(raw["client"]))
        data = base64.b64decode(raw["authenticator"])
        asked = base64.urlsafe_b64decode(client["challenge"] + "==")
    except (KeyError, TypeError, ValueError):
        return False
    verified = len(data) > _FLAGS_AT and data[_FLAGS_AT] & (_PRESENT | _VERIFIED) == (
        _PRESENT | _VERIFIED
    )
    right = client.get("type") == "webauthn.get" and bool(challenge) and asked == challenge
    return right and verified and bool(raw.get("signature"))
