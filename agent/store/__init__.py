"""What the agent remembers: one SQLite database, one writer thread."""

import sys

# sqlite_utils imports them for a recipe that reads dates and for its own program, which are never
# asked for: 3 MiB.
sys.modules.setdefault("dateutil.parser", type(sys)("dateutil.parser"))
sys.modules.setdefault("click", type("click", (), {"Group": None}))  # type: ignore[arg-type]
