"""A fresh Python of the host's runs the program's own modules, wherever the agent was started."""

import os
from pathlib import Path

import pytest

from agent.host.process import spawn


def test_a_module_in_the_agents_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write there (/tmp, a bot's folder) would run as the agent's user."""
    for name in ("json", "asyncio", "agent"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)\n")
    monkeypatch.chdir(tmp_path)
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        _, status = os.waitpid(spawn(["-m", "agent.worker"], dict(os.environ), out), 0)
    finally:
        os.close(out)
    assert os.waitstatus_to_exitcode(status) == 78, (tmp_path / "out").read_text()
    assert "usage: python -m agent.worker ID" in (tmp_path / "out").read_text()
