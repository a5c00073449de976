"""What the agent remembers: one SQLite database, one writer thread."""

from agent.lazy import load_when_used

# sqlite_utils imports it for a recipe that reads dates: 2 MiB of the agent's memory.
load_when_used("dateutil.parser")
