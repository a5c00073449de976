"""A peer's keys in groups go with the peer's other keys; our own and the others' stay."""

import pytest

from tests.baileys.conftest import ACCOUNT, NEIGHBOUR, PEER, Bed, is_read
from tests.baileys.test_one_peer import remove_peer, session_of

pytestmark = pytest.mark.slow

GROUP = "120363000000000001@g.us"


async def hear(bed: Bed, sender: str, text: str) -> list[str]:
    """A contact writes to the group; the receipts of the account's client, the last one good."""
    id = bed.whatsapp.say_in_group(sender, ACCOUNT, GROUP, text)
    await bed.eventually(lambda: is_read(bed.whatsapp.receipts(ACCOUNT, id)), within=60)
    return bed.whatsapp.receipts(ACCOUNT, id)


def sender_key_of(bed: Bed, who: str) -> str:
    """The account's own device is number 1, a phone is number 0."""
    user = f"1{who}_1" if bed.package == "baileys" else who
    return f"sender-key-{GROUP}--{user}--{int(who == ACCOUNT)}.json"


async def test_a_peers_sender_key_is_removed_and_comes_again(bed: Bed) -> None:
    await bed.pair()
    bed.whatsapp.make_group(GROUP, [ACCOUNT, PEER, NEIGHBOUR])
    assert "retry" not in await hear(bed, PEER, "one")
    assert "retry" not in await hear(bed, NEIGHBOUR, "one")
    bed.server.send(GROUP, "two")
    for who in (PEER, NEIGHBOUR):
        await bed.eventually(lambda who=who: bed.heard(who, "two"), within=60)

    bed.server.disconnect()
    before = bed.files()
    keys = {who: sender_key_of(bed, who) for who in (ACCOUNT, PEER, NEIGHBOUR)}
    assert set(keys.values()) <= set(before)
    assert f"sender-key-memory-{GROUP}.json" in before
    removed = remove_peer(bed.auth, PEER)
    assert {keys[PEER], session_of(bed, PEER).name} <= removed
    assert not {name for name in removed if NEIGHBOUR in name or name.startswith("sender-key-mem")}
    assert keys[ACCOUNT] not in removed
    bed.server.start_session()
    await bed.connected()
    assert bed.codes_shown() == 1

    # The others' keys go on; the peer gives its own again when it is told.
    assert "retry" not in await hear(bed, NEIGHBOUR, "three")
    assert (await hear(bed, PEER, "three"))[0] == "retry"
    assert "retry" not in await hear(bed, PEER, "four")
    assert keys[PEER] in bed.files()
