"""A test skips or fails where something that it needs is not there."""

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Fail where scripts/test ran, which installs `what`; skip elsewhere."""
    if "WA_TESTS_INSTALLED" in os.environ:
        pytest.fail(f"scripts/test installs what this needs, and yet: {what}")
    pytest.skip(what)


def not_lent(what: str) -> NoReturn:
    """Skip: only the machine can lend `what` (root, mounts, devices, groups).

    CI's machine lends all of it, so there nothing may be left out in silence.
    """
    if "CI" in os.environ:
        pytest.fail(f"CI's machine lends what this needs, and yet: {what}")
    pytest.skip(what)
