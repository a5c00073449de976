"""A session without WhatsApp behind it: a phone that scans, messages, every fault on command."""

from agent.engines.sandbox.engine import open_engine

__all__ = ["open_engine"]
