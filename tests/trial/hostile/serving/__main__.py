"""Play one case, whose steps come as JSON, in virtual time: what it broke is written out."""

import asyncio
import json
import sys
from pathlib import Path

from tests.trial.hostile.serving.playing import play_case
from tests.world.virtual import PatientLoop, virtual_time

with virtual_time(), asyncio.Runner(loop_factory=PatientLoop) as runner:
    try:
        runner.run(play_case(json.load(sys.stdin), Path(sys.argv[1])))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
