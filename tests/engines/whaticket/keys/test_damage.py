"""What counts as a damaged record: nothing that Baileys' own reviver takes."""

import base64
import json

import pytest

from agent.engines.whaticket.keys.damage import is_record

KEY = bytes(range(200, 232))
B64 = base64.b64encode(KEY).decode()
FORMS = {
    "text": {"type": "Buffer", "data": B64},
    "text without padding": {"type": "Buffer", "data": B64.rstrip("=")},
    "the other alphabet": {"type": "Buffer", "data": base64.urlsafe_b64encode(KEY).decode()},
    "a list": {"type": "Buffer", "data": list(KEY)},
    "marked by buffer": {"buffer": True, "data": B64},
    "its value": {"buffer": True, "value": list(KEY)},
    "an object of numbers": {str(place): byte for place, byte in enumerate(KEY)},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_bytes_that_the_reviver_takes_is_a_record(form):
    assert is_record("identity-key-5511.0", json.dumps(form).encode())
    pair = json.dumps({"private": form, "public": form}).encode()
    assert is_record("pre-key-1", pair)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "Buffer", "data": B64[:20]},
        {"type": "Buffer", "data": [*KEY, 256]},
        {"0": 1, "one": 2},
    ],
)
def test_what_it_does_not_take_is_damaged(form):
    assert not is_record("identity-key-5511.0", json.dumps(form).encode())
