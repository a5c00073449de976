"""Desks at the agent's door: right ones, and impostors that know the open half of an invitation."""

import asyncio
from dataclasses import dataclass, replace
from random import Random

from agent.core.invitation_line import HEADER, Invitation
from agent.vault.archives.seal import Sealed, Sealing
from tests.standin.clients.rude import Door, Line, Step, ask

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Desk:
    invitation: Invitation

    def head(self, size: int, door: str = "") -> bytes:
        return ask(
            f"/api/instance/{self.invitation.id}/pairing",
            f"{HEADER}: {door or self.invitation.door}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {size}",
            method="POST",
        )

    def sealed(self, token: str | None = None) -> bytes:
        """No session is in it: the invitation stays good."""
        line = self.invitation
        return seal(line if token is None else replace(line, token=token), b"no archive" * 200)


def seal(line: Invitation, content: bytes) -> bytes:
    out = _Bytes()
    sealing = Sealing(out, line.public_key, Sealed(line.id, line.token))  # type: ignore[arg-type]
    sealing.write(content)
    sealing.finish()
    return bytes(out)


class _Bytes(bytearray):
    def write(self, piece: bytes) -> int:
        self.extend(piece)
        return len(piece)


async def hand_over(door: Door, desk: Desk, source: str) -> bytes:
    """A right desk's upload: its answer."""
    content = desk.sealed()
    async with door.connected(source) as line:
        await line.send(desk.head(len(content)) + content)
        return await _answer(line)


async def impostor(door: Door, desk: Desk, step: Step) -> None:
    """Knows the door that every desk sends openly, not the token; or guesses the door. One of many
    that has not begun may be closed without a word."""
    chance, kind = Random(step["seed"]), step["kind"]
    async with door.connected(step["from"]) as line:
        match kind:
            case "guesses":
                await line.send(desk.head(GIB, chance.randbytes(32).hex()))
                said = await _answer(line)
                assert not said or b" 401 " in said or b" 503 " in said, said
            case "no token":
                content = desk.sealed(chance.choice(["", "x" * 43]))
                await line.send(desk.head(GIB) + content)
                said = await _answer(line)
                assert not said or b" 401 " in said or b'"busy"' in said, said
            case "stands" | "replays":
                much = 1000 if kind == "replays" else chance.randint(0, 200)
                await line.send(desk.head(GIB) + desk.sealed()[:much])
                await asyncio.sleep(3600)
            case "drips":
                content = chance.choice([desk.sealed(), chance.randbytes(400), b"\x1f\x8b" * 200])
                await line.send(desk.head(GIB))
                for byte in content:
                    await line.send(bytes([byte]))
                    await asyncio.sleep(step["every"] / 10)
            case "garbage":
                await line.send(desk.head(GIB) + chance.randbytes(1000))
                said = await _answer(line)
                assert not said or b" 400 " in said or b'"busy"' in said, said


async def _answer(line: Line) -> bytes:
    """All of it, without a further byte of the body."""
    said = await line.read_head()
    while not said.rstrip().endswith(b"}") and (more := await line.read()):
        said += more
    return said


IMPOSTORS = ("guesses", "no token", "stands", "stands", "replays", "drips", "garbage")
