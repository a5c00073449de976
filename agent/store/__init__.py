"""What the agent remembers: one SQLite database, one writer thread."""

import sys

# sqlite_utils imports them for its command line and for a recipe that reads dates, which are never
# asked for: 3 MiB. Any name of theirs is a text.
for unused in ("dateutil.parser", "click"):
    vars(sys.modules.setdefault(unused, type(sys)(unused))).setdefault("__getattr__", str)
