"""The README's commands for an installed agent, as they stand there."""

import json
import re
import shlex

from tests.system.bed import SOURCE, Bed

ID = "sales"


def test_s9_the_readmes_commands_after_the_installation_work(bed: Bed):
    text = (SOURCE / "README.md").read_text()
    block = re.search(r"```sh\n(sudo apt install .*?)```", text, re.S)
    assert block is not None
    commands = [line.partition("#")[0] for line in block[1].splitlines()[1:]]
    assert len(commands) >= 2
    try:
        for command in commands:
            bed.run(*shlex.split(command.removeprefix("sudo ")), within=120)

        def connected() -> bool:
            shown = json.loads(bed.run("wa-agent", "show", ID, "--json"))
            return bool(shown["connection_status"] == "CONNECTED")

        bed.until(connected, within=60)
    finally:
        bed.try_run("wa-agent", "delete", ID, "--yes")
