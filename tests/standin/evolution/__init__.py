"""A stand-in for an Evolution API server: real sockets, its real quirks, faults on command."""

from tests.standin.evolution.faults import Front
from tests.standin.evolution.instances import Times
from tests.standin.evolution.server import KEY, StandIn

__all__ = ["KEY", "Front", "StandIn", "Times"]
