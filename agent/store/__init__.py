"""What the agent remembers: one SQLite database, one writer thread."""

import sys
from types import ModuleType

# sqlite_utils imports it for a recipe that reads dates, which is never asked for: 2 MiB.
sys.modules.setdefault("dateutil.parser", ModuleType("dateutil.parser"))
