"""The machine of tests/system, for what takes longer."""

from tests.system.conftest import bed, machine, pytest_runtest_makereport, told_to_end

__all__ = ["bed", "machine", "pytest_runtest_makereport", "told_to_end"]
