"""The same messages of the same people, before a real Evolution 2.3.6 (recorded) and before the
baileys engine with a webhook in its form: what both posted, compared field by field."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.real_evolution.recording import ACCOUNT, CONTACT, NAME, write_messages
from tests.daemon.conftest import PATIENT
from tests.daemon.test_baileys import SLOWER, cache, whatsapp
from tests.standin.baileys.run import WhatsApp
from tests.wings.compat.conftest import ON, hook, recorded, values_of
from tests.wings.webhooks.receiver import Receiver

pytestmark = pytest.mark.slow
__all__ = ["cache", "whatsapp"]

LID, CONTACT_JID = f"1{CONTACT}@lid", f"{CONTACT}@s.whatsapp.net"
DIFFER = {
    *("id", "keyId", "stanzaId", "instanceId", "messageId", "code", "base64", "destination"),
    *("messageTimestamp", "senderTimestampMs", "date_time", "server_url"),
    "addressingMode",
}
"""From run to run. They are there in both."""
OF_A_FILE = {
    # How a file is fetched and read stays with its session.
    *("url", "directPath", "mediaKey", "fileEncSha256", "mediaKeyTimestamp", "ptt"),
    # Empty lists that the protocol's library makes.
    *("annotations", "interactiveAnnotations", "scanLengths", "processedVideos"),
}
DIFFER_IN = {
    "messages.update": {"status", "remoteJid"},  # of which message, and how far it is
    "messages.edited MESSAGE_EDIT": {
        "remoteJid"
    },  # there the account itself, as the sender wrote it
    "send.message contactMessage": {"vcard"},
    "status.instance": {"disconnectionAt", "disconnectionObject"},
}
UNSAID = {
    "imageMessage": OF_A_FILE,
    "videoMessage": OF_A_FILE,
    "audioMessage": OF_A_FILE,
    "documentMessage": OF_A_FILE,
    "stickerMessage": OF_A_FILE,
    # What Evolution adds to what it sends by itself: nothing vanishes, nobody is named.
    "contextInfo": {"ephemeralSettingTimestamp", "disappearingMode"},
    "locationMessage": {"contextInfo"},
    "contactMessage": {"contextInfo"},
    "senderKeyDistributionMessage": {"groupId", "axolotlSenderKeyDistributionMessage"},
    # Whose the message was; what a client of Evolution named besides.
    "reactionMessage": {"fromMe", "addressingMode", "remoteJidAlt"},
}


@pytest.fixture
async def target():
    async with Receiver().open() as one:
        yield one


def by_kind(posted: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Of each kind of event and of message; of each text by itself."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in posted:
        data = each["data"] or {}
        more = data.get("messageType") or data.get("type") or data.get("state") or ""
        text = (data.get("message") or {}).get("conversation", "")
        found.setdefault(f"{each['event']} {more} {text}".strip(), []).append(each)
    return found


@pytest.mark.timeout(120)
async def test_each_event_says_what_a_real_evolution_says(
    make_agent, target, whatsapp: WhatsApp, cache, eventually
):
    agent = make_agent(ON + hook(target))
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(PATIENT | SLOWER)
    body = {"id": NAME, "engine": "baileys", "settings": {"url": whatsapp.socket}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: agent.status(NAME), "QR_REQUIRED", within=40)

    def posted() -> dict[str, list[dict[str, Any]]]:
        return by_kind([one.body for one in target.taken])

    await eventually(lambda: "qrcode.updated" in posted(), within=20)
    code = await agent.do("GET", f"/api/instance/{NAME}/qr")
    await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
    await eventually(lambda: agent.status(NAME), "CONNECTED", within=60)
    await asyncio.to_thread(write_messages, whatsapp)
    await eventually(lambda: len(posted().get("messages.upsert reactionMessage", ())), 1)
    (reaction,) = posted()["messages.upsert reactionMessage"]
    id = reaction["data"]["message"]["reactionMessage"]["key"]["id"]
    place = {"latitude": -23.55, "longitude": -46.63, "name": "Office", "address": "Main street 1"}
    person = {"name": "Ana Souza", "phone": "+55 11 97777-6666"}
    peer = reaction["data"]["key"]["remoteJid"]
    for body in (
        {"to": CONTACT, "text": "hello"},
        {"to": CONTACT, "type": "location", **place},
        {"to": CONTACT, "type": "contact", **person},
        {"to": peer, "type": "reaction", "message_id": id, "emoji": "👍"},
    ):
        await agent.do("POST", f"/api/instance/{NAME}/messages?wait=30", body)
    await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "refuse", code=401)
    await asyncio.to_thread(whatsapp.trouble, ACCOUNT, "drop")
    real = by_kind(recorded("webhooks"))
    wanted = {kind for kind in real if kind not in NOT_ALIKE}
    await eventually(lambda: wanted - posted().keys(), set(), within=30)
    ours = posted()
    faults = [
        fault
        for kind in wanted
        for theirs, mine in list(zip(real[kind], ours[kind], strict=False))[: ONCE.get(kind)]
        for fault in differences(kind, values_of(theirs), values_of(mine))
    ]
    assert not faults, "\n".join(map(str, faults))
    for kind in wanted:
        if kind.startswith("messages.upsert"):
            assert len(ours[kind]) == len(real[kind]), kind
    assert CONTACT not in agent.log.read_text()


ONCE = {"connection.update connecting": 1}
"""How often one connects is its own; the first time it has no account yet."""
NOT_ALIKE = {
    *("messages.edited REVOKE", "send.message imageMessage"),
    "send.message conversation an answer",
}
"""A message taken back is a `messages.delete`, as it is there besides; no file and no answer is
sent here."""


def differences(
    kind: str, theirs: dict[str, Any], mine: dict[str, Any]
) -> Iterator[tuple[str, str, str]]:
    for path in sorted(theirs.keys() | mine.keys()):
        steps = [step.rstrip("[]") for step in path.split(".")]
        if path not in mine:
            unsaid = {name for step in steps for name in UNSAID.get(step, ())}
            if not unsaid & set(steps):
                yield kind, path, "is not said here"
        elif path not in theirs:
            yield kind, path, "is not said there"
        elif (DIFFER | DIFFER_IN.get(kind, set())) & set(steps):
            if type(mine[path]) is not type(theirs[path]):
                yield kind, path, "is of another type"
        elif one_name(mine[path]) != one_name(theirs[path]):
            yield kind, path, f"{mine[path]} is {theirs[path]} there"


def one_name(value: Any) -> Any:
    """Evolution calls a contact by its lid where it has one, this agent by its number; the other
    one stands beside it."""
    return value.replace(LID, CONTACT_JID) if isinstance(value, str) else value
