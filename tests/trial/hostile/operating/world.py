"""The operator works on an agent on a small disk of its own, and its sessions of four engines with
their stand-ins."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemon.conftest import RunningAgent
from tests.standin.baileys.run import WhatsApp
from tests.standin.evolution import StandIn as Evolution
from tests.standin.whaticket.server import StandIn
from tests.trial.hostile.operating.commands import BACKENDS, DEAF

PATIENCE = 60.0


@dataclass(slots=True)
class World:
    folder: Path
    agent: RunningAgent
    evolution: Evolution
    desk: StandIn
    whatsapp: WhatsApp | None = None
    ready: set[str] = field(default_factory=set)
    seen: dict[str, str] = field(default_factory=dict)
    """Each linked device that was ever paired here → the instance that it was."""
    before: dict[str, str] = field(default_factory=dict)
    """Instance → its device, when the case began."""
    ended: set[str] = field(default_factory=set)
    """Instances whose pairing this case may have ended with a word."""
    gone: set[str] = field(default_factory=set)
    """Instances that this case may have deleted."""
    unlinked: set[str] = field(default_factory=set)
    """Instances whose device WhatsApp itself may have removed, or a drill has destroyed: their
    files are worth nothing."""
    listed: dict[str, Any] = field(default_factory=dict)
    """The instances when the case began."""
    armed: str = ""
    passed: set[str] = field(default_factory=set)
    """Fail points at which an agent was killed."""
    full: bool = False
    down: bool = False
    logged: int = 0
    client: aiohttp.ClientSession | None = None

    @property
    def disk(self) -> Path:
        return self.agent.state.parent

    @property
    def sessions(self) -> Path:
        return self.agent.state / "sessions"

    # the agent

    @property
    def dead(self) -> bool:
        assert self.agent.process is not None
        return self.agent.process.returncode is not None

    async def dies(self) -> bool:
        """True if the agent's end, which broke a request off, is seen soon."""
        process = self.agent.process
        assert process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5)
        return process.returncode is not None

    async def start(self, point: str = "") -> None:
        """`point`: the agent is killed there, once it passes it."""
        self.down, self.armed = False, point
        await self.agent.start({"WA_FAILPOINT": point} if point else None, ready=False)
        try:
            await self.agent.until_ready()
        except AssertionError:
            assert self.agent.process is not None
            status = self.agent.process.returncode
            if point and status == -signal.SIGKILL:
                return await self.start_again()
            words = "make room there, then start it again" in self.log_since()
            assert self.full and status == 75 and words, f"the agent does not start: {status}"
            self.free()
            return await self.start()

    async def start_again(self) -> None:
        """After a death that was asked for."""
        if self.armed:
            self.passed.add(self.armed.partition(":")[0])
        await self.start()

    async def revive(self) -> None:
        if not self.dead or self.down:
            return
        assert self.agent.process is not None
        status = self.agent.process.returncode
        assert self.armed and status == -signal.SIGKILL, f"the agent ended by itself: {status}"
        await self.start_again()

    def log_since(self) -> str:
        return self.agent.log.read_bytes()[self.logged :].decode(errors="replace")

    def fill(self, left: int) -> None:
        """Fill the disk of the agent's state, but for `left` bytes."""
        self.full = True
        with (self.disk / "filler").open("ab", buffering=0) as filler:
            for piece in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(piece))
            filler.truncate(max(filler.tell() - left, 0))

    def free(self) -> None:
        (self.disk / "filler").unlink(missing_ok=True)
        self.full = False

    # what is typed and asked

    async def ask(self, method: str, path: str, query: Any, body: Any) -> tuple[int, str]:
        """Return status and body; the status is 0 if no agent answers."""
        if self.client is None:
            connector = aiohttp.UnixConnector(str(self.agent.state / "api.sock"), limit=64)
            self.client = aiohttp.ClientSession(connector=connector)
        how = {"data": Path(body).read_bytes()} if isinstance(body, str) else {"json": body}
        said = {key: json.dumps(value).strip('"') for key, value in query.items() if value != []}
        try:
            async with self.client.request(
                method, f"http://localhost{path}", params=said, **how
            ) as answer:
                raw = await answer.read()
                if path.endswith("/export") and answer.status == 200:
                    self.keep(raw)
                return answer.status, raw.decode(errors="replace")
        except (aiohttp.ClientError, OSError) as error:
            return 0, repr(error)

    def keep(self, archive: bytes) -> None:
        place = self.folder / "archives"
        (place / f"{len(list(place.iterdir()))}.tar.gz").write_bytes(archive)

    async def filled(self, told: Any, id: str) -> Any:
        """With the names of this moment in the place of @snapshot:1 and the like."""
        if isinstance(told, dict):
            return {key: await self.filled(value, id) for key, value in told.items()}
        if isinstance(told, list):
            return [await self.filled(value, id) for value in told]
        if not isinstance(told, str):
            return told
        for kind, which in re.findall(r"@(?!g\.us)([a-z]+)(?::(\w+))?", told):
            now = await self._name(kind, which, id)
            told = told.replace(f"@{kind}:{which}" if which else f"@{kind}", now)
        return told

    async def _name(self, kind: str, which: str, id: str) -> str:
        match kind:
            case "engine":
                status, said = await self.ask("GET", f"/api/instance/{which}", {}, None)
                usual = "evolution" if which == "evo" else "whaticket"
                at_first = usual if which in BACKENDS else "sandbox"
                return str(json.loads(said)["engine"]) if status == 200 else at_first
            case "config":
                return str(self.agent.config)
            case "state":
                return str(self.agent.state)
            case "whatsapp":
                return self.whatsapp.socket if self.whatsapp else DEAF
            case "file":
                return str(self.folder / "archives" / f"{which}.tar.gz")
            case "full":
                return str(self.disk / f"{which}.tar.gz")
            case "bot":
                return str(self.folder / "bots" / ("one", "two", "", "one")[int(which)])
        found = sorted(await self.names_of(kind, id), reverse=True)
        return found[int(which) % len(found)] if found else _NOBODYS[kind]

    async def names_of(self, kind: str, id: str) -> list[str]:
        if kind in ("removed", "key"):
            path = "/api/keys" if kind == "key" else "/api/instance/desk/removed"
            status, said = await self.ask("GET", path, {}, None)
            rows = json.loads(said).get("keys" if kind == "key" else kind, []) if status else []
            return [str(row["id" if kind == "key" else "name"]) for row in rows]
        place = {
            "snapshot": self.sessions / ".snapshots" / id,
            "trash": self.sessions / ".trash",
            "archive": self.folder / "archives",
        }[kind]
        found = list(place.iterdir()) if place.is_dir() else []
        return [str(path) if kind == "archive" else path.name for path in found]

    # the sessions

    def devices(self, *places: str) -> dict[str, list[str]]:
        """Paired device → the folders of it, below these places of the sessions' folder."""
        found: dict[str, list[str]] = {}
        for place in places:
            for name, device_of in _STORES.items():
                for path in (self.sessions / place).glob(f"**/{name}"):
                    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                        if device := device_of(json.loads(path.read_bytes())):
                            found.setdefault(device, []).append(str(path))
        return found

    def live(self) -> dict[str, str]:
        """Instance → its device."""
        ids = [path.name for path in self.sessions.iterdir() if not path.name.startswith(".")]
        found = {id: device for id in ids for device in self.devices(f"{id}/session")}
        with contextlib.suppress(OSError, ValueError):
            creds = self.folder / "desk" / "auth" / "7" / "creds.json"
            found["desk"] = str(json.loads(creds.read_bytes())["noise"])
        return found

    def look(self) -> None:
        self.seen |= {device: id for id, device in self.live().items() if id != "desk"}

    async def status(self, id: str) -> str:
        status, said = await self.ask("GET", f"/api/instance/{id}", {}, None)
        return str(json.loads(said)["connection_status"]) if status == 200 else f"{status} {said}"

    async def until(self, what: str, probe: Callable[[], Any], within: float = PATIENCE) -> None:
        until = time.monotonic() + within
        while (told := await probe()) is not True:
            assert time.monotonic() < until, f"{what}: {told}"
            await asyncio.sleep(0.1)

    async def connected(self, id: str, within: float = PATIENCE) -> None:
        async def probe() -> Any:
            if (told := await self.status(id)) == "CONNECTED":
                return True
            why = await self.ask("GET", f"/api/instance/{id}", {}, None)
            return told + " " + str(json.loads(why[1]).get("sentence", why))

        await self.until(f"{id} is not connected", probe, within)


_NOBODYS = {
    "snapshot": "20200101T000000Z-1", "trash": "a.20200101T000000Z-1", "key": "aaaaaaaa",
    "removed": "20200101T000000Z-1", "archive": os.devnull,
}  # fmt: skip
_STORES: dict[str, Callable[[Any], str]] = {
    "sandbox.json": lambda told: told["device"] if told["paired"] else "",
    "creds.json": lambda told: (
        hashlib.sha256(told["noiseKey"]["private"]["data"].encode()).hexdigest()[:12]
        if told.get("me")
        else ""
    ),
}
