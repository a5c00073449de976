"""Messages through the real worker: every kind, every outcome, and the events of each."""

import base64
from collections.abc import Mapping
from typing import Any

from tests.engines.web.bench import Bench
from tests.standin.web.stand_in import StandIn

TO = "5511888888888"
CHAT = f"{TO}@c.us"
GROUP = "120363000000000001@g.us"


def sends(stand_in: StandIn) -> list[Mapping[str, Any]]:
    return [each for each in stand_in.page().received if each["do"] == "send"]


async def send(bench: Bench, **message: Any) -> Mapping[str, Any]:
    return await bench.link.call("send", {"message": {"to": TO, **message}}, timeout=20)


def heard(bench: Bench, kind: str = "message", **detail: str) -> list[Mapping[str, Any]]:
    found = [each.detail for each in bench.happened if each.kind == kind]
    return [each for each in found if detail.items() <= each.items()]


async def test_messages_go_out_and_come_in_and_are_counted_without_their_text(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    told = await send(bench, to="+55 11 88888-8888", type="text", text="very secret")
    assert told["outcome"] == "sent" and told["ack"] == "server"
    (sent,) = sends(stand_in)
    assert (sent["to"], sent["body"], sent["id"]) == (CHAT, "very secret", told["id"])
    page = stand_in.page()
    page.tell("receipt", ack=3, **{"from": CHAT}, ids=[told["id"]])
    page.tell("message", **{"from": "5511777777777@c.us"}, body="also secret")
    await bench.until(lambda: heard(bench, direction="in", type="chat"))
    await bench.until(lambda: heard(bench, direction="out", id=told["id"]))
    await bench.until(lambda: heard(bench, "ack", id=told["id"], ack="read"))
    assert "secret" not in repr(bench.happened) and "5511" not in repr(bench.happened)


async def test_a_group_is_written_to_and_its_members_are_read(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    told = await send(bench, to=GROUP, type="text", text="to all", key="one")
    assert (told["outcome"], sends(stand_in)[-1]["to"]) == ("sent", GROUP)
    again = await send(bench, to=GROUP, type="text", text="to all", key="one")
    assert again["id"] == told["id"] and len(stand_in.arrived) == 1, "one message of one key"
    page = stand_in.page()
    id = "ABCDEF0123456789"
    page.tell("message", **{"from": GROUP}, participant=CHAT, body="and you?", id=id)
    await bench.until(lambda: heard(bench, direction="in", id=id))
    about = {"message_id": id, "sender": CHAT}
    told = await send(bench, to=GROUP, type="reaction", emoji="\N{THUMBS UP SIGN}", **about)
    assert told["outcome"] == "sent"
    sent = sends(stand_in)[-1]
    assert (sent["type"], sent["to"], sent["about"]) == ("reaction", GROUP, id)
    told = await send(bench, to=GROUP, type="text", text="me too", quote=id, quote_from=CHAT)
    assert (told["outcome"], sends(stand_in)[-1]["to"]) == ("sent", GROUP)
    content = base64.b64encode(b"x" * 1000).decode()
    file = {"content": content, "mimetype": "text/plain", "filename": "x.txt"}
    told = await send(bench, to=GROUP, type="media", **file)
    sent = sends(stand_in)[-1]
    assert (told["outcome"], sent["to"], sent["size"]) == ("sent", GROUP, 1000)
