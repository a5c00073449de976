"""What a contact chooses — names, sizes, numbers — costs that contact's keys at most."""

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.engines.baileys.node import find_node
from agent.engines.baileys.packages import find_packages
from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench

HERE = Path(__file__).parent
SHARED = base64.b64encode(b"\x33\x08\x01\x10\x00\x1a\x20" + b"k" * 32 + b"\x22\x21" + b"\x05" * 33)
"""A sender key, as a member of a group gives it to each device."""


def distribution(group: str) -> dict[str, Any]:
    told = {"groupId": group, "axolotlSenderKeyDistributionMessage": SHARED.decode()}
    return {"conversation": "hello", "senderKeyDistributionMessage": told}


def test_the_store_refuses_a_contacts_strange_keys_alone_and_says_so_ever_more_seldom(
    cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "session").mkdir()
    line = [find_node(), HERE / "store_names.mjs", find_packages(cache), tmp_path / "session"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = [event["count"] for event in json.loads(done.stdout)["told"]]
    assert counts == [1, 1, 10, 100]
    assert {path.parent for path in tmp_path.glob("**/*.json")} == {tmp_path / "session"}


@pytest.mark.slow
async def test_a_contact_that_names_groups_as_no_file_can_be_named_ends_nothing(
    bench: Bench,
) -> None:
    await bench.pair()
    begun = len(bench.heard.claims)
    for group in ("x" * 300, "a\0b", "a\nb", "\ud800", "../" * 70, "é" * 130):
        message = distribution(group)
        id = await asyncio.to_thread(bench.whatsapp.say_message, PEER, ACCOUNT, message)
        await bench.until(lambda id=id: bench.heard.count("message", id=id))
    await bench.talk("still here", OTHER)
    assert bench.heard.claims[begun:] == []
    assert not bench.heard.errors


@pytest.mark.slow
async def test_an_id_of_half_a_million_characters_does_not_end_the_client(bench: Bench) -> None:
    await bench.pair()
    begun = len(bench.heard.claims)
    told = {"from": PEER, "to": ACCOUNT, "text": "hello", "id": "A" * 500_000 + "\ud800"}
    await asyncio.to_thread(bench.whatsapp.tell, "/say", told)
    await bench.until(lambda: bench.heard.count("message", direction="in"))
    await bench.talk("still here")
    assert bench.heard.claims[begun:] == []
