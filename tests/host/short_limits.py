"""The stand-in worker and time limits that a test can wait for."""

from dataclasses import replace
from pathlib import Path

from agent.host.life import Limits

STANDIN = Path(__file__).with_name("standin.py")
FAST = Limits(
    watchdog=20.0,
    start_timeout=20.0,
    stop_timeout=20.0,
    restart_delay=0.02,
    burst=4,
    burst_interval=30.0,
)
WATCHFUL = replace(FAST, watchdog=1.5, stop_timeout=2.0)
"""A busy machine may hold up a good worker for longer: only where it is to be killed."""
