"""Signals at any moment of a worker's life: it ends, and what is on the disk is whole."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.sandbox.files import read_session
from agent.errors import ConfigError, FolderUnusable
from agent.worker.identity import read_identity


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.14, 0.2])
async def test_a_signal_at_any_moment_of_the_start_ends_it_without_a_mess(
    bench: Any, delay: float
) -> None:
    process = bench.start()
    await asyncio.sleep(delay)
    process.terminate()
    ended = await bench.ended()
    # Before it listens for signals there is nothing to save.
    assert ended in (0, -signal.SIGTERM)
    assert "Traceback" not in bench.errors()
    await _whole_and_restorable(bench)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0.0, 0.001, 0.005, 0.02, 0.1])
async def test_f11_a_second_signal_at_any_moment_of_the_stop_leaves_whole_files(
    bench: Any, second: signal.Signals, delay: float
) -> None:
    await bench.connected(settings={"save_seconds": 0.05})
    bench.process.terminate()
    await asyncio.sleep(delay)
    bench.process.send_signal(second)
    ended = await bench.ended()
    assert ended == 0 or ended == -second == -signal.SIGKILL
    await _whole_and_restorable(bench, paired=True)


async def _whole_and_restorable(bench: Any, *, paired: bool = False) -> None:
    if bench.session.exists():
        session = read_session(bench.session)
        assert not paired or (session is not None and session.paired)
    await bench.connected()


@given(st.binary(max_size=100) | st.from_regex(rb'\{"version": ?1, ?"id": ?"a", ?.{0,40}\}'))
def test_an_identity_of_any_bytes_is_read_or_says_that_it_cannot_be_used(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    root = tmp_path_factory.mktemp("r")
    (root / "a").mkdir()
    (root / "a" / "instance.json").write_bytes(text)
    try:
        identity = read_identity("a", root)
    except FolderUnusable as error:
        assert error.exit_status == 66
    else:
        assert identity.id == "a" and isinstance(identity.engine, str)


@given(st.text(max_size=60))
def test_an_id_of_any_text_is_found_or_a_configuration_error(id: str) -> None:
    with pytest.raises((ConfigError, FolderUnusable)):
        read_identity(id, Path("/nonexistent"))


def test_an_identity_that_is_no_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "instance.json")  # opening it must not wait for a writer
    with pytest.raises(FolderUnusable):
        read_identity("a", tmp_path)
    (tmp_path / "b" / "instance.json").mkdir(parents=True)
    with pytest.raises(FolderUnusable):
        read_identity("b", tmp_path)


def test_keys_of_a_newer_program_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    content = {"version": 1, "id": "a", "engine": "sandbox", "enabled": True, "colour": "red"}
    content["settings"] = {"x": 1}
    (tmp_path / "a" / "instance.json").write_text(json.dumps(content))
    identity = read_identity("a", tmp_path)
    assert identity.engine == "sandbox" and identity.settings == {"x": 1}
