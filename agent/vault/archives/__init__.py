"""Sessions as archives: packed, and unpacked within bounds."""

from agent.lazy import load_when_used

# Most agents never pack or unpack a session.
load_when_used("tarfile")
