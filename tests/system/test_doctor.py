"""The doctor on a machine that systemd booted, with the agent installed as it ships."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.bed import Bed

RULE = "/usr/share/polkit-1/rules.d/50-wa-agent.rules"


def wrong(bed: Bed) -> dict[str, str]:
    done = bed.try_run("wa-agent", "doctor", "--json")
    found = json.loads(done.stdout)["findings"]
    named = {one["check"]: one["sentence"] for one in found if one["level"] == "wrong"}
    assert done.returncode == (1 if named else 0)
    return named


@contextmanager
def without(bed: Bed, path: str) -> Iterator[None]:
    bed.run("mv", path, f"{path}.away")
    try:
        yield
    finally:
        bed.run("mv", f"{path}.away", path)


def test_doctor_names_every_part_that_was_removed(bed: Bed):
    with without(bed, RULE):
        assert "polkit rule" in wrong(bed)["polkit"]
    with without(bed, "/usr/local/lib/systemd/system/wa-instance@.service"):
        assert "wa-instance@.service" in wrong(bed)["units"]
    bed.run("chmod", "o+rx", "/var/lib/wa-agent")
    assert "open to every user" in wrong(bed)["state"]
    bed.run("chmod", "o-rx", "/var/lib/wa-agent")
    assert wrong(bed) == {}
