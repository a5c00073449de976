"""A worker's folder and link, as its own tests have them."""

from tests.worker.conftest import bench, make_bench

__all__ = ["bench", "make_bench"]
