"""What `scripts/chaos programs` does to its bots is what was asked for."""

from collections import Counter
from pathlib import Path

import pytest

from scripts.benches import bot_kills
from scripts.benches.bot_kills import FULL, KINDS


@pytest.mark.parametrize("root", [True, False])
def test_each_fault_falls_on_one_bot_and_the_shared_disk_on_one_alone(
    root: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_kills.os, "geteuid", lambda: 0 if root else 1000)
    shares = bot_kills._shares(200, 6, seed=7)
    drawn = Counter(kind for share in shares for kind in share)
    kinds = (*KINDS, FULL) if root else KINDS
    assert (sum(drawn.values()), set(drawn)) == (200, set(kinds))
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert all(FULL not in share for share in shares[1:])
    assert shares == bot_kills._shares(200, 6, seed=7)


def test_the_settings_of_the_bots_agent_can_be_used(tmp_path: Path) -> None:
    from agent.config import load_config

    (file := tmp_path / "agent.toml").write_text(
        bot_kills.SETTINGS.format(node="/usr/bin/node", bot="/srv/bot.mjs", url="ws://x")
    )
    (program,) = load_config(file, {}).of_wings["program"]
    assert program.starts == 100
