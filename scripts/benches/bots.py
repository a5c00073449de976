"""Bots of somebody's own under wa-agent, pm2 and plain systemd units: what happens to each when its
loop hangs, when WhatsApp falls silent, and when its credentials are damaged."""

import asyncio
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from scripts.benches.machine import this_machine
from scripts.benches.peers import PM2, NotHere, install_pm2
from scripts.benches.processes import pss, spent_in, tree
from scripts.benches.report import OURS, Goal, Report, Row
from scripts.benches.systemd import systemd_version
from tests.daemon.conftest import RunningAgent
from tests.standin.baileys.run import HERE, WhatsApp, why_not
from tests.system.bed import Bed

BOT = HERE / "bots" / "plain.mjs"
PEER = "5511900000900"
LIMIT = 90.0
"""Seconds after which a fault counts as not healed; the table shows this number for it."""
PAIRS = 120.0
IDLE, TURNS = 60.0, 5
"""Seconds of each look at bots that have nothing to do, and how many looks."""
SETTINGS = """\
[agent]
host = "process"

[memory]
total = 0

[[program]]
name = "bot"
command = ["{node}", "{bot}"]
environment = ["WHATSAPP={url}"]
"""
UNIT = """\
[Service]
ExecStart={node} {bot}
Environment=WHATSAPP={url} SHOW_CODE=yes
WorkingDirectory=/var/lib/bots/%i
StandardOutput=append:/var/lib/bots/%i/out.log
Restart=always
"""


class System(Protocol):
    """What keeps the bots."""

    async def begin(self, ids: Sequence[str]) -> None: ...

    async def code(self, id: str) -> str:
        """That it shows now; "" = none."""

    def folder(self, id: str) -> Path:
        """Where its session lies."""

    def roots(self) -> Sequence[int]:
        """The processes below which all of it runs."""

    async def copy(self, id: str) -> None:
        """Makes a copy of its session, where it has such a thing."""

    async def mend(self, id: str) -> None:
        """What its keeper says that a person must type, where it says so."""

    async def notices(self, id: str) -> bool:
        """Whether it says that the bot is not connected."""

    async def end(self) -> None: ...


class Logged:
    """Neither pm2 nor systemd knows what a connection is; codes are in the bots' output."""

    root: Path

    async def code(self, id: str) -> str:
        log = self.root / id / "out.log"
        found = re.findall(r"^scan (\S+)$", log.read_text() if log.exists() else "", re.M)
        return found[-1] if found else ""

    def folder(self, id: str) -> Path:
        return self.root / id / "auth_info_baileys"

    async def copy(self, id: str) -> None: ...

    async def mend(self, id: str) -> None: ...

    async def notices(self, id: str) -> bool:
        return False


class Ours:
    def __init__(self, place: Path, url: str) -> None:
        node = shutil.which("node")
        (config := place / "agent.toml").write_text(SETTINGS.format(node=node, bot=BOT, url=url))
        self._agent = RunningAgent(place / "state", config)

    async def begin(self, ids: Sequence[str]) -> None:
        await self._agent.start()
        for id in ids:
            body = {"id": id, "engine": "program", "settings": {"program": "bot"}}
            await self._agent.do("POST", "/api/instance", body)

    async def code(self, id: str) -> str:
        status, answer = await self._agent.ask("GET", f"/api/instance/{id}/qr")
        return str(answer["qr"]) if status == 200 else ""

    def folder(self, id: str) -> Path:
        return self._agent.state / "sessions" / id / "session" / "auth_info_baileys"

    def roots(self) -> Sequence[int]:
        assert self._agent.process is not None
        return [self._agent.process.pid, *self._agent.worker_pids()]

    async def copy(self, id: str) -> None:
        await self._agent.do("POST", f"/api/instance/{id}/snapshots")

    async def mend(self, id: str) -> None:
        path = f"/api/instance/{id}"
        async with asyncio.timeout(LIMIT):
            while (await self._reason(id)) != "session_damaged":  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            await self._agent.do("POST", f"{path}/stop")
            while await self._agent.pid(id):  # noqa: ASYNC110 - the host tells nothing
                await asyncio.sleep(0.2)
        copies = (await self._agent.do("GET", f"{path}/snapshots"))["snapshots"]
        name = max(copy["name"] for copy in copies if copy["good"])
        await self._agent.do("POST", f"{path}/snapshots/{name}/restore", {"force": True})
        await self._agent.do("POST", f"{path}/start")

    async def _reason(self, id: str) -> str:
        return str((await self._agent.show(id))["health"]["reason"])

    async def notices(self, id: str) -> bool:
        return await self._agent.status(id) != "CONNECTED"

    async def end(self) -> None:
        await self._agent.close()


class Pm2Bots(Logged):
    def __init__(self, place: Path, url: str) -> None:
        self._program, self._home, self._url = install_pm2(), place / "pm2", url
        self.root = place / "bots"

    async def begin(self, ids: Sequence[str]) -> None:
        apps = []
        for id in ids:
            (self.root / id).mkdir(parents=True)
            env = {"WHATSAPP": self._url, "SHOW_CODE": "yes"}
            out = str(self.root / id / "out.log")
            app = {"name": id, "script": str(BOT), "cwd": str(self.root / id)}
            apps.append({**app, "env": env, "out_file": out})
        (file := self.root / "bots.json").write_text(json.dumps({"apps": apps}))
        await self._ask("start", str(file))

    def roots(self) -> Sequence[int]:
        return [int((self._home / "pm2.pid").read_text())]

    async def end(self) -> None:
        await self._ask("kill")

    async def _ask(self, *words: str) -> None:
        env = {**os.environ, "PM2_HOME": str(self._home)}
        command = [str(self._program), *words]
        await asyncio.to_thread(
            subprocess.run, command, env=env, check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


class Units(Logged):
    """A template unit as people write one, in a booted container."""

    def __init__(self, _place: Path, url: str) -> None:
        if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
            raise NotHere("systemd: needs root and systemd-nspawn (Debian: systemd-container)")
        self._bed = Bed.make()
        self.root = self._bed.root / "var/lib/bots"
        text = UNIT.format(node=shutil.which("node"), bot=BOT, url=url)
        self._bed.write("/etc/systemd/system/bot@.service", text)

    async def begin(self, ids: Sequence[str]) -> None:
        for id in ids:
            (self.root / id).mkdir(parents=True)
        await asyncio.to_thread(self._bed.boot)
        self.root = self._bed.path("/var/lib/bots")
        units = [f"bot@{id}.service" for id in ids]
        await asyncio.to_thread(self._bed.run, "systemctl", "start", *units)

    def roots(self) -> Sequence[int]:
        return [self._bed.init]

    async def end(self) -> None:
        await asyncio.to_thread(self._bed.close)


class Measured:
    """One system with its bots, and a WhatsApp of its own."""

    def __init__(self, system: System, whatsapp: WhatsApp, ids: Sequence[str]) -> None:
        self._system, self._whatsapp = system, whatsapp
        self._accounts = {id: f"55119000020{at:02d}" for at, id in enumerate(ids)}
        self.figures: dict[str, list[float]] = defaultdict(list)

    async def run(self, turns: int) -> None:
        await self._system.begin(list(self._accounts))
        for id, account in self._accounts.items():
            async with asyncio.timeout(PAIRS):
                while not (code := await self._system.code(id)):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            await asyncio.to_thread(self._whatsapp.scan, code, account)
            await self._login_after(account, 0, PAIRS)
            await asyncio.sleep(5)
            await self._system.copy(id)
        bots = [pid for root in self._system.roots() for pid in tree(root)]
        self.figures["memory"] = [sum(map(pss, set(bots))) / len(self._accounts)]
        await self._idle(turns)
        for id, account in self._accounts.items():
            await self._hang(account)
            await self._silence(id, account)
            await self._damage(id, account)

    async def _idle(self, turns: int) -> None:
        """Shares of a core: of the bot's own process, and of the one that keeps it alone."""
        nodes = [self._node(account) for account in self._accounts.values()]
        keepers = self._system.roots()[1:] if isinstance(self._system, Ours) else []
        for _ in range(turns):
            spent = await asyncio.gather(spent_in(nodes, IDLE), spent_in(keepers, IDLE))
            for name, seconds in zip(("idle", "idle keeper"), spent, strict=True):
                self.figures[name].append(seconds / 60 * 100 / len(nodes))

    def _logins(self, account: str) -> int:
        own = [login for login in self._whatsapp.logins() if login["user"] == account]
        return len(own)

    async def _login_after(self, account: str, count: int, within: float) -> float:
        """Seconds until it has logged in more often than that; `within` where it did not."""
        begun = time.monotonic()
        while time.monotonic() - begun < within:
            if await asyncio.to_thread(self._logins, account) > count:
                return time.monotonic() - begun
            await asyncio.sleep(0.2)
        return within

    async def _hang(self, account: str) -> None:
        before = self._logins(account)
        await asyncio.to_thread(self._whatsapp.say, PEER, account, "hang")
        took = await self._login_after(account, before, LIMIT)
        self.figures["hang"].append(took)
        if took >= LIMIT:
            self._kill(account)
            await self._login_after(account, before, PAIRS)

    async def _silence(self, id: str, account: str) -> None:
        """As behind a NAT that forgot the connection: nothing comes, and nothing says so."""
        await asyncio.sleep(10)
        await asyncio.to_thread(self._whatsapp.trouble, account, "silence")
        begun = time.monotonic()
        while time.monotonic() - begun < LIMIT and not await self._system.notices(id):
            await asyncio.sleep(0.2)
            if not isinstance(self._system, Ours):
                break  # it has no word for it
        took = time.monotonic() - begun if await self._system.notices(id) else LIMIT
        self.figures["zombie"].append(took)
        before = self._logins(account)
        await asyncio.to_thread(self._whatsapp.trouble, account, "none")
        self._kill(account)
        await self._login_after(account, before, PAIRS)

    async def _damage(self, id: str, account: str) -> None:
        """The credentials are zeros, as a full disk or a power cut leaves them, and the bot ends.
        The pairing is lost where it does not log in again without a scan."""
        before, creds = self._logins(account), self._system.folder(id) / "creds.json"
        pid = self._node(account)
        os.kill(pid, signal.SIGSTOP)
        creds.write_bytes(bytes(creds.stat().st_size))
        os.kill(pid, signal.SIGKILL)
        await self._system.mend(id)
        took = await self._login_after(account, before, LIMIT)
        self.figures["lost"].append(float(took >= LIMIT))

    def _kill(self, account: str) -> None:
        os.kill(self._node(account), signal.SIGKILL)

    def _node(self, account: str) -> int:
        """Its process: each works in the folder above its session."""
        id = next(id for id, own in self._accounts.items() if own == account)
        wanted = self._system.folder(id).parent.stat()
        for root in self._system.roots():
            for pid in tree(root):
                try:
                    here = Path(f"/proc/{pid}/cwd").stat()
                    words = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    continue
                if (here.st_dev, here.st_ino) == (wanted.st_dev, wanted.st_ino) and (
                    BOT.name.encode() in words or b"node" in words[:20]
                ):
                    return pid
        raise NotHere(f"the process of {id} is not found")


def measure(instances: int = 2, *, quick: bool = False) -> Report:
    if reason := why_not("baileys"):
        raise SystemExit(reason)
    ids = [f"bot-{number}" for number in range(1 if quick else instances)]
    figures: dict[str, dict[str, list[float]]] = defaultdict(dict)
    notes = [f"{len(ids)} bots each; {LIMIT:.0f} s stands for: not within {LIMIT:.0f} s"]
    machine, versions = this_machine(), {OURS: "this checkout"}
    systems = {OURS: (Ours, "this checkout"), "pm2": (Pm2Bots, PM2), "systemd": (Units, "")}
    beside = _beside({k: its[0] for k, its in systems.items()}, ids, 1 if quick else TURNS)
    for name, found in asyncio.run(beside).items():
        if isinstance(found, NotHere):
            notes.append(f"left out: {found}")
            continue
        versions[name] = systems[name][1] or systemd_version()
        for measured, runs in found.items():
            figures[measured][name] = runs
    notes += [
        "pm2 and systemd know processes alone: no connection, so a silent one is none of theirs;"
        " Baileys itself ends it after its keep-alive, everywhere alike",
        "ours had a copy of the session, as it makes one each hour, and a person typed `restore`;"
        " the others have no copies",
    ]
    rows = [
        Row(
            "a hung loop: until the bot is logged in again", "s", figures["hang"], Goal("≤ 30", 30)
        ),
        Row("a silent connection: until it is named", "s", figures["zombie"], Goal("≤ 60", 60)),
        Row("pairings lost to damaged credentials", "of 1", figures["lost"], Goal("0", 0)),
        Row("memory of one bot with its keeper, PSS", "MiB", figures["memory"]),
        Row("an idle bot's own process", "% of a core", figures["idle"], _little(figures["idle"])),
        Row("its worker beside it", "% of a core", {OURS: figures["idle keeper"].get(OURS, [])}),
    ]
    return Report("programs", machine, versions, rows, notes)


def _little(idle: Mapping[str, Sequence[float]]) -> Goal:
    """The others' bots have nothing loaded into them."""
    plain = [figure for name, its in idle.items() if name != OURS for figure in its]
    words = "≤ 0.1 more than a plain one's"
    return Goal(words, statistics.median(plain) + 0.1 if plain else None)


Make = type[Ours] | type[Pm2Bots] | type[Units]


async def _beside(
    systems: Mapping[str, Make], ids: Sequence[str], turns: int
) -> dict[str, dict[str, list[float]] | NotHere]:
    """All at once: what else the machine does is the same for each."""
    results = await asyncio.gather(*(_measure(make, ids, turns) for make in systems.values()))
    return dict(zip(systems, results, strict=True))


async def _measure(make: Make, ids: Sequence[str], turns: int) -> dict[str, list[float]] | NotHere:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Path(name)
        whatsapp = WhatsApp(place / "whatsapp.log")
        try:
            system = make(place, whatsapp.socket)
            measured = Measured(system, whatsapp, ids)
            try:
                await measured.run(turns)
            finally:
                await system.end()
            return dict(measured.figures)
        except NotHere as error:
            return error
        finally:
            whatsapp.end()
