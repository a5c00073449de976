"""Sessions on an Evolution API server (2.3.x, 2.4 and 1.8)."""

from agent.engines.evolution.backend import open_backend

__all__ = ["open_backend"]
