"""The fleet's key: its file, its derived secrets, and what it seals."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError, VaultError
from agent.fleet.key import FleetKey, copy_context
from tests.lacking import not_lent

KEY = FleetKey(bytes(range(32)))
CONTEXT = copy_context("shop", 3)


def test_a_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Path):
    path = tmp_path / "fleet.key"
    made = FleetKey.make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert FleetKey.read(path) == made
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        FleetKey.make(path)
    assert path.read_bytes() == before


def _missing(path: Path) -> None:
    path.unlink()


def _open_to_its_group(path: Path) -> None:
    path.chmod(0o640)


def _of_another_user(path: Path) -> None:
    os.chown(path, 12345, -1)


def _a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def _too_short(path: Path) -> None:
    path.write_bytes(b"x" * 31)


def _too_long(path: Path) -> None:
    path.write_bytes(b"x" * 33)


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    "spoil",
    [_missing, _open_to_its_group, _of_another_user, _a_link, _too_short, _too_long, _a_pipe],
)
def test_a_key_file_that_is_not_as_it_should_be_is_refused(tmp_path: Path, spoil):
    if spoil is _of_another_user and os.geteuid() != 0:
        not_lent("only root gives a file away")
    path = tmp_path / "fleet.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    spoil(path)
    with pytest.raises(ConfigError) as refused:
        FleetKey.read(path)
    assert refused.value.code == "fleet_key"
    assert str(path) in str(refused.value)


def test_every_use_has_its_own_secret_and_none_is_shown():
    secrets = {KEY.bearer, KEY.profiles_password, KEY.fingerprint}
    assert len(secrets) == 3
    assert not any(secret.startswith(KEY.fingerprint) for secret in secrets - {KEY.fingerprint})
    assert FleetKey(os.urandom(32)).bearer != KEY.bearer
    assert repr(KEY) == "FleetKey()"


@settings(deadline=None, database=None)
@given(data=st.binary(max_size=2000), epoch=st.integers(0, 1 << 40), other=st.integers(0, 1 << 40))
def test_a_copy_opens_only_as_its_own_session_and_epoch(data: bytes, epoch: int, other: int):
    sealed = KEY.seal(copy_context("shop", epoch), data)
    assert KEY.open(copy_context("shop", epoch), sealed) == data
    head = 18  # it names the format and the key
    assert len(data) < 8 or data not in sealed[head:]
    for id, at in (("shop", other), ("shop-2", epoch), ("sho", epoch)):
        if (id, at) != ("shop", epoch):
            with pytest.raises(VaultError) as refused:
                KEY.open(copy_context(id, at), sealed)
            assert refused.value.code == "damaged"


@settings(deadline=None, database=None)
@given(data=st.binary(max_size=200), at=st.integers(0, 1000), bit=st.integers(0, 7))
def test_a_copy_with_one_changed_bit_is_refused(data: bytes, at: int, bit: int):
    sealed = bytearray(KEY.seal(CONTEXT, data))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(VaultError) as refused:
        KEY.open(CONTEXT, bytes(sealed))
    assert refused.value.code in ("damaged", "other_key")


@settings(deadline=None, database=None)
@given(data=st.binary(max_size=200), cut=st.integers(1, 1000), more=st.binary(min_size=1))
def test_a_copy_that_is_cut_or_longer_is_refused(data: bytes, cut: int, more: bytes):
    sealed = KEY.seal(CONTEXT, data)
    for changed in (sealed[: max(len(sealed) - cut, 0)], sealed + more):
        with pytest.raises(VaultError, match="cannot open"):
            KEY.open(CONTEXT, changed)


def test_a_copy_sealed_with_another_key_names_both_by_their_fingerprints():
    other = FleetKey(b"\1" * 32)
    with pytest.raises(VaultError) as refused:
        other.open(CONTEXT, KEY.seal(CONTEXT, b"files"))
    assert refused.value.code == "other_key"
    assert KEY.fingerprint in str(refused.value)
    assert other.fingerprint in str(refused.value)
