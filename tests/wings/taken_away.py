"""A copy of the program without some of its wings."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.wing import Wing, wings

PROGRAM = Path(__file__).parents[2] / "agent"
NO_CHECKOUT = """
import sys
sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in each.__module__]
"""


def program_without(taken: Sequence[Wing], folder: Path) -> dict[str, str]:
    """The environment in which that copy runs instead of this checkout."""
    copy = folder / "agent"
    # With its bytecode, which is valid for a copy of the same age.
    shutil.copytree(PROGRAM, copy, ignore=shutil.ignore_patterns("node_modules"))
    for wing in taken:
        shutil.rmtree(copy / "wings" / wing.name)
    if tuple(taken) == wings():
        shutil.rmtree(copy / "wings")
    # An editable installation would find in this checkout what is gone from the copy.
    (copy.parent / "sitecustomize.py").write_text(NO_CHECKOUT)
    # Safe: the working folder, which holds the whole program, is not looked into first.
    return {"PYTHONPATH": str(copy.parent), "PYTHONSAFEPATH": "1"}
