"""Records that the page makes of what arrives: every kind, by events and by the comparison."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.engines.web.browser.page import Page, page_script
from agent.engines.web.browser.process import Browser, find_browser
from agent.engines.web.engine import is_record
from agent.engines.web.fetch import page_config, read_bundle
from agent.messages.record import LONGEST, OWN, clean, encode
from tests.engines.web.bench import ACCOUNT, Bench
from tests.standin.web.stand_in import StandIn

ANN, BOB, GROUP = "5511777777777@c.us", "5511666666666@c.us", "120363000000000001@g.us"
ANN_JID, BOB_JID = "5511777777777@s.whatsapp.net", "5511666666666@s.whatsapp.net"
ME = f"{ACCOUNT}@s.whatsapp.net"
THUMB = "\N{THUMBS UP SIGN}"


class Watched:
    """A browser on the stand-in that makes records, without a worker."""

    def __init__(self, stand_in: StandIn, cache: Path, profile: Path) -> None:
        self.stand_in, self._profile = stand_in, profile
        self.since = time.time() - 60
        self.words: list[str] = []
        self.facts: Mapping[str, Any] = {}
        self.document, self.done = "", 0
        self.taken: list[Mapping[str, Any]] = []
        self._bundle = read_bundle(cache)
        self._browser: Browser | None = None
        self._page: Page | None = None

    @property
    def page(self) -> Page:
        assert self._page is not None
        return self._page

    async def open(self) -> None:
        url = self.stand_in.url
        script = page_script(url, page_config(""), self._bundle, kept_from=self.since)
        found = find_browser("headless-shell", os.environ.get("WA_BROWSER", ""))
        self._browser = await Browser.start(found, self._profile, loopback=True)
        self._page = await Page.open(
            self._browser.debugger, script, self._browser.version, self._hear
        )
        await self.page.navigate(url, within=60)

    async def pair(self) -> None:
        await self.open()
        await self.said("conn.auth_code_change")
        await Bench.until(lambda: self.stand_in.clients and self.stand_in.page().code, within=60)
        self.stand_in.scan(ACCOUNT)
        await self.ready()

    async def ready(self) -> None:
        await Bench.until(
            lambda: self.facts.get("mode") == "MAIN" and self.facts["full"], within=60
        )

    async def said(self, word: str) -> None:
        await Bench.until(lambda: word in self.words, within=60)

    async def record(self, kind: str, count: int = 1, within: float = 30.0) -> Mapping[str, Any]:
        """Wait for `count` records of that kind by events; return the newest."""
        async with asyncio.timeout(within):
            while True:
                told = await self.page.ask("records.take", self.document, self.done, within=30)
                self.document, self.done = told["document"], told["number"]
                self.taken += told["records"]
                found = [each for each in self.taken if each["kind"] == kind]
                if len(found) >= count:
                    return found[-1]
                await asyncio.sleep(0.02)

    async def compare(self, failing: int = 0) -> list[Mapping[str, Any]]:
        """Return the records that a comparison finds of a page that had no events."""
        told = await self.page.ask("records.compare", self.since, 60, within=61)
        assert (told["cut"], told["failed"]) == (False, failing)
        found: list[Mapping[str, Any]] = []
        while True:
            part = await self.page.ask("records.next", within=60)
            found += part["records"]
            if not part["left"]:
                return found

    async def close(self) -> None:
        if self._page is not None:
            self._page.close()
        if self._browser is not None:
            await self._browser.close()

    def _hear(self, word: str, told: Mapping[str, Any]) -> None:
        self.words.append(word)
        self.facts = told.get("s") or self.facts


@pytest.fixture
async def watched(
    tmp_path: Path, cache: Path, browser: None, stand_in: StandIn
) -> AsyncIterator[Watched]:
    made = Watched(stand_in, cache, tmp_path / "profile")
    yield made
    await made.close()


def says(stand_in: StandIn, id: str, body: str = "hi", chat: str = ANN, **more: Any) -> None:
    stand_in.deliver("message", **{"from": chat, "id": id, "body": body, **more})


async def test_each_kind_of_message_is_a_record_of_its_own_fields(
    watched: Watched, stand_in: StandIn
) -> None:
    await watched.pair()
    file = {"mimetype": "image/png", "size": 7, "filehash": "aGFzaA==", "width": 3, "height": 4}
    quote: dict[str, Any] = {"quotedStanzaID": "OLD1", "quotedParticipant": BOB}
    quote["quotedMsg"] = {"type": "chat", "body": "before"}
    card = "BEGIN:VCARD\nFN:Ann\nEND:VCARD"
    poll: dict[str, Any] = {"pollName": "lunch?", "pollSelectableOptionsCount": 1}
    poll["pollOptions"] = [{"name": "yes", "localId": 0}, {"name": "no", "localId": 1}]
    place = {"lat": -33.86, "lng": 151.21, "loc": "Office\nQuay 1"}
    named = {"notifyName": "Ann", "mentionedJidList": [BOB]}
    given: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("M1", "chat", {**named, **quote}, {"type": "text", "text": "hi", "name": "Ann"}),
        ("M2", "image", {**file, "caption": "look"}, {"type": "image", "text": "look"}),
        ("M3", "ptt", {"mimetype": "audio/ogg", "duration": "9"}, {"type": "audio", "text": ""}),
        ("M4", "document", {"filename": "a.pdf", "caption": "a.pdf"}, {"type": "document"}),
        ("M5", "sticker", {}, {"type": "sticker"}),
        ("M6", "video", {}, {"type": "video"}),
        ("M7", "location", place, {"type": "location", "text": ""}),
        ("M8", "vcard", {"vcardFormattedName": "Ann", "body": card}, {"type": "contact"}),
        ("M9", "poll_creation", poll, {"type": "poll"}),
        ("M10", "order", {}, {"type": "other", "text": "hi"}),
    ]
    for id, type, fields, _ in given:
        says(stand_in, id, type=type, fields=fields, t=int(time.time()))
    await watched.record("message", len(given), within=60)
    by_id = {each["message_id"]: each for each in watched.taken}
    assert len(watched.taken) == len(given)
    for id, _, _, wanted in given:
        record = by_id[id]
        assert wanted.items() <= record.items()
        assert record["id"] == f"m:{ANN_JID}:{ANN_JID}:{id}"
        assert (record["chat"], record["sender"]) == (ANN_JID, ANN_JID)
        assert record["from_me"] is False and record["fresh"] is True
        assert abs(record["at"] - time.time()) < 60
        assert is_record(record) and clean(record) == record
    assert by_id["M1"]["quote"] == {"message_id": "OLD1", "sender": BOB_JID, "text": "before"}
    assert by_id["M1"]["mentions"] == [BOB_JID]
    picture = {"mimetype": "image/png", "size": 7, "sha256": "68617368", "width": 3, "height": 4}
    assert by_id["M2"]["media"] == picture
    assert by_id["M2"]["_media"] == {"key": f"false_{ANN}_M2"}
    assert by_id["M3"]["media"]["seconds"] == 9
    assert by_id["M4"]["text"] == "", "the bundle puts a file's name there"
    where = {"latitude": -33.86, "longitude": 151.21, "name": "Office", "address": "Quay 1"}
    assert by_id["M7"]["location"] == where
    assert by_id["M8"]["contacts"] == [{"name": "Ann", "vcard": card}]
    assert by_id["M9"]["poll"] == {"question": "lunch?", "options": ["yes", "no"], "several": False}


async def test_what_happens_to_messages_is_a_record_by_event_and_the_same_one_by_comparison(
    watched: Watched, stand_in: StandIn
) -> None:
    await watched.pair()
    now = int(time.time())
    poll = {"pollName": "?", "pollOptions": [{"name": "yes", "localId": 0}]}
    says(stand_in, "M1")
    says(stand_in, "G1", "in the group", GROUP, participant=BOB)
    says(stand_in, "O1", "from the phone", fromMe=True)
    says(stand_in, "P1", type="poll_creation", fields=poll)
    says(stand_in, "D1", "not for long")
    await watched.record("message", 5)
    by_id = {each["message_id"]: each for each in watched.taken}
    assert by_id["G1"]["sender"] == BOB_JID and by_id["G1"]["id"] == f"m:{GROUP}:{BOB_JID}:G1"
    assert by_id["O1"]["from_me"] is True and by_id["O1"]["sender"] == ME
    assert by_id["O1"]["id"] == f"m:{ANN_JID}:me:O1" and by_id["O1"]["chat"] == ANN_JID

    theirs = f"false_{ANN}_M1"
    stand_in.deliver("edit", key=theirs, body="hello", id="E1", t=now)
    told = await watched.record("message_edit")
    assert (told["message_id"], told["text"], told["at"]) == ("M1", "hello", now)
    stand_in.deliver("reaction", key=theirs, emoji=THUMB, by=ANN, t=now * 1000, id="R1")
    told = await watched.record("message_reaction")
    assert (told["message_id"], told["emoji"]) == ("M1", THUMB)
    assert (told["sender"], told["at"], told["from_me"]) == (ANN_JID, now, False)
    stand_in.deliver("vote", key=f"false_{ANN}_P1", options=[0], by=ANN, t=now * 1000, id="V1")
    told = await watched.record("message_vote")
    assert (told["message_id"], told["options"], told["sender"]) == ("P1", ["yes"], ANN_JID)
    stand_in.deliver("revoke", key=f"false_{ANN}_D1", by=None, id="X1")
    told = await watched.record("message_delete")
    assert (told["message_id"], told["sender"]) == ("D1", ANN_JID)
    stand_in.deliver("receipt", ack=3, **{"from": ANN}, ids=["O1"])
    told = await watched.record("message_ack")
    assert (told["message_id"], told["state"], told["from_me"]) == ("O1", "read", True)
    assert (told["chat"], told["participant"]) == (ANN_JID, "")
    stand_in.deliver("call", id="CALL1", video=True, t=now, **{"from": ANN})
    told = await watched.record("call")
    assert (told["call_id"], told["state"], told["video"]) == ("CALL1", "offer", True)
    assert (told["sender"], told["id"]) == (ANN_JID, "c:CALL1:offer")
    assert all(clean(each) == each for each in watched.taken)
    assert {each["kind"] for each in watched.taken} == set(OWN) - {"message_gap"}

    assert await watched.compare() == [], "all of it came by events"
    # Another document knows of none of it by events.
    watched.facts = {}
    await watched.page.navigate(stand_in.url, within=60)
    await watched.ready()
    found = await watched.compare()
    ids = [each["id"] for each in found]
    by_events = {each["id"] for each in watched.taken if each["kind"] != "call"}
    # Only the deletion of a deleted message is left.
    assert set(ids) == by_events - {f"m:{ANN_JID}:{ANN_JID}:D1"}
    assert not any(each.get("fresh") for each in found)
    moments = [each["at"] for each in found if each["kind"] == "message"]
    assert moments == sorted(moments)
    assert [it["id"] for it in await watched.compare()] == ids, "it was not kept, and comes again"


async def test_what_a_contact_sends_is_bounded_and_never_ends_the_page(
    watched: Watched, stand_in: StandIn
) -> None:
    await watched.pair()
    long = "\N{SMILE}" * 70_000
    many = [{"name": "x" * 5000, "localId": each} for each in range(2000)]
    says(stand_in, "L1", long, fields={"notifyName": "n" * 5000, "mentionedJidList": [BOB] * 3000})
    says(stand_in, "L2", "a\ud800b", fields={"quotedStanzaID": "Q", "quotedMsg": 7})
    says(stand_in, "L3", type="poll_creation", fields={"pollName": "p", "pollOptions": many})
    says(stand_in, "L4", type="constructor", fields={"lat": "x", "loc": {"a": 1}})
    says(stand_in, "L5", type="location", fields={"lat": 1e300, "lng": "oops", "loc": 5})
    says(stand_in, "L6", type="multi_vcard", fields={"vcardList": [None, {"vcard": "v" * 99_999}]})
    says(stand_in, "L" * 300, "a long id")
    says(stand_in, "L7", 5)  # type: ignore[arg-type]
    await watched.record("message", 8)
    for record in watched.taken:
        assert is_record(record) and len(record["id"]) <= 200
        # The spool cuts nothing more off.
        assert len(encode(record)) <= LONGEST and "cut" not in encode(record).decode()[-20:]
        assert record.keys() <= clean(record).keys()
    by_id = {each["message_id"]: each for each in watched.taken}
    assert len(by_id["L1"]["text"]) <= 65_536 and len(by_id["L1"]["mentions"]) == 500
    assert by_id["L2"]["text"] == "a\N{REPLACEMENT CHARACTER}b"
    assert by_id["L4"]["type"] == "other"
    assert by_id["L7"]["text"] == ""
    says(stand_in, "LAST")
    await watched.record("message", 9)
