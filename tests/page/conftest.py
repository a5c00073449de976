"""An agent, and the server over what stands in for one."""

from tests.api.conftest import house, local, open_house

__all__ = ["house", "local", "open_house"]
