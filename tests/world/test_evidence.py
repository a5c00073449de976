"""What the interface shows of failed starts that a worker noted."""

import json

NOTE = {"why": "the page did not load", "claim": "LOADING start_stuck loaded"}


async def test_failed_starts_are_shown_with_their_pictures(agent, eventually):
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    assert (await agent.do("GET", "/api/instance/sales/failed-starts"))["failed_starts"] == []
    folder = agent.state / "sessions" / "sales" / "session" / "diagnostics"
    folder.mkdir()
    (folder / "20261120T101112Z.json").write_text(json.dumps(NOTE))
    (folder / "20261120T101112Z.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (one,) = (await agent.do("GET", "/api/instance/sales/failed-starts"))["failed_starts"]
    assert one == {"name": "20261120T101112Z", "seen": NOTE, "picture": True}
    path = "/api/instance/sales/failed-starts/20261120T101112Z/picture"
    async with agent._client.get(f"http://localhost{path}") as answer:
        assert (answer.status, answer.content_type) == (200, "image/jpeg")
        assert await answer.read() == b"\xff\xd8\xff\xe0"
