"""What the agent remembers: one SQLite database, one writer thread."""

import sys

# sqlite_utils imports it for a recipe that reads dates, which is never asked for: 2 MiB.
sys.modules.setdefault("dateutil.parser", type(sys)("dateutil.parser"))
