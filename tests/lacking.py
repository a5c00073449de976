"""What a test does where something that it needs is not there."""

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Of what scripts/test installs: a failure where it ran, elsewhere a reason to skip."""
    if "WA_TESTS_INSTALLED" in os.environ:
        pytest.fail(f"scripts/test installs what this needs, and yet: {what}")
    pytest.skip(what)


def not_lent(what: str) -> NoReturn:
    """Of what only the machine can lend (root, mounts, devices, groups): a reason to skip.

    CI's machine lends all of it, so there nothing may be left out in silence.
    """
    if "CI" in os.environ:
        pytest.fail(f"CI's machine lends what this needs, and yet: {what}")
    pytest.skip(what)
