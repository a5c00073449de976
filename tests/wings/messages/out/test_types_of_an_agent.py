"""Replies, edits, deletions, reading and typing over the API of a real agent with a sandbox."""

from typing import Any

from tests.wings.messages.out.sending import ID, OUTBOX, PATH, TO, connected, state

ANN = f"{TO}@s.whatsapp.net"
GROUP = "120363041234567890@g.us"


async def wrote(agent, **said: Any) -> str:
    said = {"contact": TO, **said}
    return str((await agent.do("POST", f"/api/instance/{ID}/sandbox/say", said))["id"])


async def send(agent, **message: Any) -> str:
    status, answer = await agent.ask("POST", PATH, {"to": TO, **message})
    assert status == 202, answer
    return str(answer["id"])


async def shown(agent) -> list[dict[str, Any]]:
    page = await agent.do("GET", f"/api/instance/{ID}/sandbox/heard?limit=1000")
    return list(page["messages"])


async def kept(agent) -> int:
    return len((await agent.do("GET", f"/api/instance/{ID}/messages"))["records"])


async def test_what_a_message_is_about_is_looked_up_where_it_is_kept(agent, eventually):
    await connected(agent, eventually)
    asked = await wrote(agent, text="coming?")
    in_group = await wrote(agent, text="who?", group=GROUP)
    await eventually(lambda: kept(agent), 2)
    await send(agent, text="yes", quote=asked)
    await send(agent, text="me", to=GROUP, quote=in_group, mentions=["+55 11 77777-7777"])
    first = await send(agent, text="helo")
    await send(agent, text="again", quote=first)
    await send(agent, type="edit", message_id=first, text="hello")
    await send(agent, type="reaction", to=GROUP, message_id=in_group, emoji="!")
    last = await send(agent, type="delete", message_id=first)
    await eventually(lambda: state(agent, last), "delivered")

    async def seen() -> int:
        return len(await shown(agent))

    await eventually(seen, 7)
    to_ann = [m for m in await shown(agent) if m["chat"] == ANN]
    id = to_ann[1]["id"]
    about = ("type", "quote", "quote_from", "message_id")
    assert [tuple(m.get(name) for name in about) for m in to_ann] == [
        ("text", asked, ANN, None),
        ("text", None, None, None),
        ("text", id, "me", None),
        ("edit", None, None, id),
        ("delete", None, None, id),
    ]  # fmt: skip
    assert (to_ann[0]["quote_text"], to_ann[2]["quote_text"]) == ("coming?", "helo")
    reply, reaction = sorted(
        (m for m in await shown(agent) if m["chat"] == GROUP), key=lambda m: m["cursor"]
    )
    assert (reply["quote_from"], reply["mentions"]) == (ANN, [ANN])
    assert reaction["sender"] == ANN
    assert "coming?" not in agent.log.read_text()


async def test_a_message_about_none_of_this_chat_fails_for_that_reason(agent, eventually):
    await connected(agent, eventually)
    other = await send(agent, to="5511666666666", text="to another one")
    await eventually(lambda: state(agent, other), "delivered")
    wrong = [
        await send(agent, type="edit", message_id=other, text="x"),
        await send(agent, text="x", quote="out_000000000000"),
        await send(agent, type="delete", message_id="3EB0NEVERSENT"),
    ]
    for id in wrong:
        await eventually(lambda id=id: state(agent, id), "failed")
        assert (await agent.do("GET", f"{OUTBOX}/{id}"))["reason"] == "message_not_found"
    assert [m["text"] for m in await shown(agent)] == ["to another one"]


async def test_a_chat_is_marked_as_read_up_to_where_it_was_marked_last(agent, eventually):
    await connected(agent, eventually)
    first = [await wrote(agent, text="one"), await wrote(agent, text="two", group=GROUP)]
    await eventually(lambda: kept(agent), 2)
    read = f"/api/instance/{ID}/read"
    marks = [(await agent.do("POST", read, {"chat": "+55 11 77777-7777"}))["marked"] for _ in "12"]
    assert marks == [1, 0]
    await agent.do("POST", read, {"chat": GROUP, "message_ids": [first[1]]})
    status, refused = await agent.ask("POST", read, {"chat": GROUP, "message_ids": ["X1"]})
    assert (status, refused["error"], refused["field"]) == (409, "message_not_found", "sender")
    told = {"chat": GROUP, "message_ids": ["X1"], "sender": "5511666666666"}
    assert (await agent.do("POST", read, told))["marked"] == 1
    seen = [(m["type"], m["chat"], m["message_ids"], m.get("sender")) for m in await shown(agent)]
    assert seen == [
        ("read", ANN, [first[0]], ANN),
        ("read", GROUP, [first[1]], ANN),
        ("read", GROUP, ["X1"], "5511666666666@s.whatsapp.net"),
    ]


async def test_typing_is_shown_now_or_refused(agent, eventually):
    await connected(agent, eventually)
    presence = f"/api/instance/{ID}/presence"
    await agent.do("POST", presence, {"state": "typing", "chat": TO, "seconds": 1})

    async def states() -> list[str]:
        return [m["type"] for m in await shown(agent)]

    await eventually(states, ["typing", "paused"])
    await agent.do("POST", presence, {"state": "unavailable"})
    for body, field in (
        ({"state": "typing"}, "chat"),
        ({"state": "available", "chat": TO}, "chat"),
        ({"state": "dancing", "chat": TO}, "state"),
        ({"state": "typing", "chat": "nobody"}, "chat"),
        ({"state": "typing", "chat": TO, "seconds": 121}, "seconds"),
    ):
        status, wrong = await agent.ask("POST", presence, body)
        assert (status, wrong["field"]) == (400, field)
    await agent.fault(ID, "drop", 3600)

    async def away() -> tuple[int, str]:
        status, answer = await agent.ask("POST", presence, {"state": "paused", "chat": TO})
        return status, answer.get("error", "")

    await eventually(away, (409, "not_connected"))
