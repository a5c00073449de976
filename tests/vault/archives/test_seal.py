"""Sealed archives: whole for the one who has the key, and nothing for anybody else."""

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.invitation_line import Invitation, fingerprint, key_text, parse_invitation
from agent.core.model import InstanceId
from agent.errors import InvalidRequest, Refused, VaultError, WaError
from agent.vault.archives.seal import MAGIC, Sealed, Sealing, Unsealed, is_sealed, make_key

ID = InstanceId("sales")


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("agent") / "pairing.key"
    make_key(path)
    return path


def seal(key, content, token="t"):
    out = io.BytesIO()
    sealing = Sealing(out, make_key(key), Sealed(ID, token))
    for start in range(0, len(content), 10_007):
        sealing.write(content[start : start + 10_007])
    sealing.finish()
    return out.getvalue()


def unseal(key, raw):
    opened = Unsealed(io.BytesIO(raw), key)
    pieces = []
    while piece := opened.read(1 << 15):
        pieces.append(piece)
    return opened.sealed, b"".join(pieces)


def code_of(key, raw):
    with pytest.raises(WaError) as caught:
        unseal(key, raw)
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
def test_sealed_bytes_come_out_again(key, size):
    content = os.urandom(size)
    raw = seal(key, content)
    assert is_sealed(io.BytesIO(raw))
    assert size < 32 or content[:32] not in raw
    assert unseal(key, raw) == (Sealed(ID, "t"), content)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "pairing.key"
    assert make_key(path) == make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(VaultError):
        make_key(path)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(VaultError):
        make_key(path)


def test_another_agents_key_opens_nothing(key, tmp_path):
    other = tmp_path / "pairing.key"
    raw = seal(key, b"a session")
    assert code_of(other, raw) == "other_server", "and none has no key at all"
    own = bytes.fromhex(fingerprint(make_key(other)))
    assert code_of(other, raw) == "other_server"
    assert code_of(other, MAGIC + own + raw[len(MAGIC) + 16 :]) == "damaged"


def test_a_changed_byte_is_seen_wherever_it_is(key):
    raw = seal(key, bytes(100_000))
    for at in (len(MAGIC) + 16, len(MAGIC) + 30, 250, 400, 66_000, len(raw) - 1):
        broken = bytearray(raw)
        broken[at] ^= 1
        assert code_of(key, bytes(broken)) in ("damaged", "truncated"), at


def test_parts_cannot_be_left_out_repeated_or_added(key):
    raw = seal(key, bytes(200_000))
    start = len(MAGIC) + 16
    start += 4 + int.from_bytes(raw[start : start + 4], "big")
    part = 4 + 65536 + 17
    assert code_of(key, raw[:start] + raw[start + part :]) == "damaged"
    assert code_of(key, raw[: start + part] + raw[start:]) == "damaged"
    assert code_of(key, raw + b"x") == "damaged"
    assert code_of(key, raw[: start + part]) == "truncated", "the end is missing"
    assert code_of(key, raw[:-5]) == "truncated"


@given(st.binary(max_size=300))
def test_garbage_is_refused_by_name(key, raw):
    assert code_of(key, MAGIC + raw) in ("other_server", "damaged", "truncated")


def test_an_invitation_is_one_line():
    made = Invitation(ID, bytes(range(32)), "secret", "http://10.0.0.5:8470")
    assert parse_invitation(made.line() + "\n", InstanceId("x")) == made
    assert "secret" not in repr(made)
    alone = parse_invitation(key_text(made.public_key), InstanceId("x"))
    assert alone == Invitation(InstanceId("x"), made.public_key)
    for wrong in ("", "wap1:a:b", "wap1:UP:AAAA:t:", "wap2" + made.line()[4:], "ä", "AAAA"):
        with pytest.raises(InvalidRequest):
            parse_invitation(wrong, ID)


def test_an_upload_for_another_key_is_refused_not_taken_for_damage(key, tmp_path):
    other = tmp_path / "pairing.key"
    make_key(other)
    with pytest.raises(Refused):
        Unsealed(io.BytesIO(seal(other, b"x")), key)
