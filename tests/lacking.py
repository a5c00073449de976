"""What a test does where something that it needs is not there."""

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Of what scripts/test installs: a failure where it ran, elsewhere a reason to skip."""
    if "WA_TESTS_INSTALLED" in os.environ:
        pytest.fail(f"scripts/test installs what this needs, and yet: {what}")
    pytest.skip(what)
