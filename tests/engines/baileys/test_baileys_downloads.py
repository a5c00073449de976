"""The client's downloads of files, against a media server of every kind."""

import subprocess
from pathlib import Path

from agent.engines.baileys.node import find_node

HERE = Path(__file__).parent


def test_a_file_comes_as_its_message_says_from_whatsapps_own_address_or_not_at_all() -> None:
    line = [find_node(), HERE / "downloads.mjs"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
