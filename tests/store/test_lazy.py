"""What sqlite_utils imports to read dates is in no agent's memory, and works where asked."""

import subprocess
import sys

PROGRAM = """
import sys
import agent.store.database
from sqlite_utils import Database
db = Database(memory=True)
db["t"].insert({"id": 1, "at": "2 January 2020"}, pk="id")
loaded = {"dateutil.parser._parser", "zoneinfo"} & set(sys.modules)
assert not loaded, loaded
import dateutil.parser

from sqlite_utils import recipes
assert recipes.parsedate("2 January 2020") == "2020-01-02"
assert "dateutil.parser._parser" in sys.modules
assert not hasattr(dateutil.parser, "nothing_of_this_name")
"""


def test_unneeded_modules_of_the_database_library_are_loaded_by_their_first_use():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
