"""Session folders: looked at, copied, retired, put back, packed and unpacked."""

from agent.lazy import load_when_used

# Most agents never pack or unpack a session.
load_when_used("tarfile")
