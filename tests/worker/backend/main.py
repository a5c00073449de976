"""The real worker program, which here knows one engine more: `loop`."""

import sys

from agent.engines.catalog import CATALOG, EngineEntry
from agent.worker.__main__ import main

CATALOG["loop"] = EngineEntry("loop", "a test's", "tests.worker.backend.loop", remote=True)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
