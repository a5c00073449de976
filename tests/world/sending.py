"""A sandbox session of an agent, what is sent with it, what its contacts got, what it keeps."""

from pathlib import Path
from typing import Any

from tests.messages.records import file_at, messages, numbers_of, read_all

ID = "a"
PATH = f"/api/instance/{ID}/messages"
OUTBOX = f"/api/instance/{ID}/outbox"
TO = "5511777777777"


async def connected(agent, eventually, **settings: Any) -> None:
    await agent.create(ID, scan_after=0, **settings)
    await eventually(lambda: agent.status(ID), "CONNECTED")


async def goes_away(agent, eventually) -> None:
    await agent.fault(ID, "drop", 3600)

    async def away() -> bool:
        return await agent.status(ID) != "CONNECTED"

    await eventually(away)


async def heard(agent, text: str | None = None) -> list[str]:
    """The texts that the contacts' phones show, oldest first."""
    status, page = await agent.ask("GET", f"/api/instance/{ID}/sandbox/heard?limit=1000")
    if status != 200:
        return ["its worker does not run"]
    texts = [message.get("text", "") for message in page["messages"]]
    return [each for each in texts if text in (None, each)]


async def state(agent, id: str) -> str:
    return str((await agent.do("GET", f"{OUTBOX}/{id}"))["state"])


async def say(agent, text: str, to: str = TO, **more: Any) -> str:
    status, answer = await agent.ask("POST", PATH, {"to": to, "text": text, **more})
    assert status == 202, answer
    assert answer["state"] == "accepted"
    return str(answer["id"])


def left_in(agent) -> bytes:
    """All that the outbox's file and its journal hold."""
    files = [path for path in agent.state.glob("outbox.db*") if path.is_file()]
    return b"".join(path.read_bytes() for path in files)


def keep_three(folder: Path) -> None:
    """Keep three messages in the session whose folder it is."""
    file = file_at(folder, folder.name)
    file.append(messages(range(3)))
    file.close()


def kept_in(folder: Path) -> list[int]:
    file = file_at(folder, folder.name)
    try:
        return numbers_of(read_all(file))
    finally:
        file.close()
