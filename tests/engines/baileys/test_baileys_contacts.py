"""Values that a contact chooses — names, sizes, numbers — cost that contact's keys at most."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.engines.baileys.node import find_packages
from agent.engines.baileys.peer_keys import unreadable_record
from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench, run_node

HERE = Path(__file__).parent


def test_the_store_refuses_a_contacts_strange_keys_alone_and_says_so_ever_more_seldom(
    cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "session").mkdir()
    told = json.loads(
        run_node(HERE / "store_names.mjs", find_packages(cache), tmp_path / "session")
    )["told"]
    assert [event["count"] for event in told] == [1, 1, 10, 100]
    assert {path.parent for path in tmp_path.glob("**/*.json")} == {tmp_path / "session"}


@pytest.mark.slow
async def test_a_receipt_for_twenty_thousand_ids_does_not_end_the_client(bench: Bench) -> None:
    await bench.come_paired()
    await bench.talk("hello")
    begun = len(bench.heard.claims)
    ids = [{"tag": "item", "attrs": {"id": f"{number}"}} for number in range(20_000)]
    stanza = {"tag": "receipt", "attrs": {"id": "1", "from": f"1{PEER}@lid", "t": "1"}}
    receipt = {"user": ACCOUNT, "stanza": {**stanza, "content": [{"tag": "list", "content": ids}]}}
    await asyncio.to_thread(bench.whatsapp.tell, "/put", receipt)
    await bench.talk("still here")
    assert bench.heard.claims[begun:] == []
    assert 0 < bench.heard.count("ack") < 1000


SCRIPTS = {
    "store_damage": "any record but the credentials that cannot be read is moved aside and absent",
    "store_mends": "credentials that broke under a connected session are written again",
    # Where messages cross, and where Node is killed between a frame and its transaction's end.
    "signal_sessions": "no message goes under a key that the contact has seen or cannot have",
    "store_after": "a record is written beside the old one while what must come first goes on",
    "records": "votes are read, ids are known by their mark, and any bytes make bounded records",
    "downloads": "a file comes as its message says, from WhatsApp's own address, or not at all",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=SCRIPTS.values())
def test_the_client_keeps_its_word_without_a_session(
    script: str, cache: Path, tmp_path: Path
) -> None:
    run_node(HERE / f"{script}.mjs", find_packages(cache), tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("session-15511900000002_1.0.json", "the key file session-* of contact #"),
        ("sender-key-1@g.us--5511900000002--0.json", "the key file sender-key-* of contact #"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_without_its_contacts_number(
    name: str, words: str
) -> None:
    sentence = unreadable_record(name)
    assert sentence.startswith(words)
    assert "5511900000002" not in sentence
    assert "removed-keys/unreadable" in sentence


@pytest.mark.slow
async def test_a_damaged_record_of_a_contact_costs_that_contact_one_retry(bench: Bench) -> None:
    await bench.come_paired()
    await bench.talk("hello")
    session = next(bench.folder.glob("session-*900000002*"))
    begun, whole = len(bench.heard.claims), session.read_bytes()
    damages = [b"", whole[: len(whole) // 2], bytes(len(whole)), b"null", b"NaN", b"[5]"]
    for number, damage in enumerate(damages):
        session.write_bytes(damage)
        retries = bench.whatsapp.person(PEER)["retries"]
        await bench.talk(f"after damage {number}")
        assert bench.whatsapp.person(PEER)["retries"] <= retries + 1
    assert bench.heard.claims[begun:] == []
    kept = {path.read_bytes() for path in (bench.folder / "removed-keys/unreadable").iterdir()}
    assert kept == set(damages[:-1]), "the last is JSON: the library itself takes it as absent"
    assert bench.heard.count("key_unreadable") == len(kept)
    await bench.restart()
    await bench.talk("after a restart")
