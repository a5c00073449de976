"""What a record is made with, on the library but without a session."""

import subprocess
from pathlib import Path

from agent.engines.baileys.node import find_node, find_packages

HERE = Path(__file__).parent


def test_votes_are_read_ids_are_known_by_their_mark_and_any_bytes_make_bounded_records(
    cache: Path,
) -> None:
    line = [find_node(), HERE / "records.mjs", find_packages(cache)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
