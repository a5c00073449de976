"""A session without WhatsApp behind it: a phone that scans, messages, every fault on command."""

from agent.engines.sandbox.engine import open_engine
from agent.engines.sandbox.file import lost_store

__all__ = ["lost_store", "open_engine"]
