"""The toy's sessions live on the server that the tests of workers have."""

from tests.worker.backend.loop.backend import open_backend

__all__ = ["open_backend"]
