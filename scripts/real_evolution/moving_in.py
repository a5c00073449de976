"""Move a session from a real Evolution server to an agent, and let an unmodified public client of
Evolution go on with it: the address changes and the key, nothing else.

  python -m scripts.real_evolution.moving_in --server FOLDER --client PYTHON

PYTHON is one that has the package `evolutionapi` (PyPI). The same client asks a session of the
sandbox, too. Exit status 1 if a call fails, or if what is sent or received does not arrive.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from scripts.outages.beds import running_agent
from scripts.real_evolution.bed import until
from scripts.real_evolution.recording import ACCOUNT, CLIENT, CONTACT, NAME
from scripts.real_evolution.server import KEY, RealServer
from tests.daemon.conftest import RunningAgent
from tests.engines.baileys.conftest import make_cache
from tests.ports import free_port
from tests.standin.baileys.run import WhatsApp, make_certificate
from tests.standin.postgres import Postgres
from tests.wings.webhooks.receiver import Receiver

SANDBOX = "sandbox"
ON = """
[compat]
evolution = true

[[webhook]]
name = "flows"
url = "{url}"
private = true
format = "evolution"
kinds = ["*", "message*"]
"""


class Move:
    def __init__(self, place: Path, client: Path) -> None:
        self.place, self.client = place, client
        self.faults: list[str] = []

    async def run(self, source: Path) -> None:
        tls = make_certificate(self.place)
        os.environ["NODE_EXTRA_CA_CERTS"] = str(tls[1])
        async with AsyncExitStack() as stack:
            whatsapp = await asyncio.to_thread(WhatsApp, self.place / "whatsapp.log", tls)
            stack.callback(whatsapp.end)
            database = await asyncio.to_thread(Postgres, self.place / "pg")
            stack.callback(database.end)
            server = await asyncio.to_thread(
                RealServer, source, self.place / "server", whatsapp.socket
            )
            stack.push_async_callback(server.close)
            await asyncio.to_thread(server.use, database)
            await server.start()
            await self._pair(server, whatsapp)
            await self._ask("Evolution", f"http://127.0.0.1:{server.port}", KEY, NAME, None)
            await server.kill()

            target = await stack.enter_async_context(Receiver().open())
            make_cache(self.place / "cache")
            listen = f"127.0.0.1:{free_port()}"
            agent = await stack.enter_async_context(
                running_agent(self.place, ON.format(url=target.url), listen)
            )
            await self._import(agent, database, whatsapp)
            made = {"name": "client", "scopes": ["operate"]}
            key = (await agent.do("POST", "/api/keys", made))["token"]
            await self._go_on(agent, f"http://{listen}", key, whatsapp, target)
            await agent.create(SANDBOX)
            await self._connected(agent, SANDBOX)
            path = f"/api/instance/{SANDBOX}/sandbox/say"
            said = await agent.do("POST", path, {"contact": CONTACT, "text": "a question"})
            heard = {"remoteJid": f"{CONTACT}@s.whatsapp.net", "fromMe": False, "id": said["id"]}
            await self._until_told(target, said["id"])
            await self._ask("wa-agent, sandbox", f"http://{listen}", key, SANDBOX, heard)

    async def _pair(self, server: RealServer, whatsapp: WhatsApp) -> None:
        await until(lambda: server.make(NAME), 60)
        code = await until(lambda: server.code(NAME), 60)
        await asyncio.to_thread(whatsapp.scan, code, ACCOUNT)

        async def is_open() -> bool:
            return await server.state(NAME) == "open"

        await until(is_open, 60)

    async def _import(self, agent: RunningAgent, database: Postgres, whatsapp: WhatsApp) -> None:
        words = ("import", database.url, "--keys", self.place / "server/instances", "--all")
        words += ("--enable", "--stopped", "--set", f"url={whatsapp.socket}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", *words, "--socket", agent.state / "api.sock"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        print(said.decode())
        if process.returncode:
            raise RuntimeError("the import failed")
        await self._connected(agent, NAME)

    async def _connected(self, agent: RunningAgent, id: str) -> None:
        async def is_connected() -> bool:
            return await agent.status(id) == "CONNECTED"

        await until(is_connected, 60)

    async def _go_on(
        self, agent: RunningAgent, url: str, key: str, whatsapp: WhatsApp, target: Receiver
    ) -> None:
        id = await asyncio.to_thread(whatsapp.say, CONTACT, ACCOUNT, "a question")
        came = await self._until_told(target, id)
        before = len(whatsapp.person(CONTACT)["heard"])
        await self._ask("wa-agent, baileys", url, key, NAME, came["data"]["key"])
        arrived = len(whatsapp.person(CONTACT)["heard"]) - before
        print(f"the contact's phone got {arrived} messages")
        if arrived < 3:  # two texts and a picture; it shows no others
            self.faults.append(f"the contact got {arrived} messages of 3")
        if (logins := len([it for it in whatsapp.logins() if it["user"] == ACCOUNT])) > 3:
            self.faults.append(f"the account logged in {logins} times")

    async def _until_told(self, target: Receiver, id: str) -> dict[str, Any]:
        async def told() -> dict[str, Any] | None:
            events = (one.body for one in target.taken)
            of_it = (each for each in events if each["event"] == "messages.upsert")
            return next((each for each in of_it if each["data"]["key"]["id"] == id), None)

        return await until(told, 60)

    async def _ask(
        self, whom: str, url: str, key: str, name: str, heard: dict[str, Any] | None
    ) -> None:
        """`heard`: the key of a message that came; None: nothing did, and what is about one is
        refused."""
        told = json.dumps(heard or {"remoteJid": f"{CONTACT}@s.whatsapp.net", "id": "3EB0"})
        process = await asyncio.create_subprocess_exec(
            *(self.client, CLIENT, url, key, name, CONTACT, told),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        for line in map(json.loads, out.splitlines()):
            answer = line.get("answer")
            refused = isinstance(answer, dict) and "error" in answer
            good = "error" not in line and not refused
            print(f"{whom}: {line['call']}: {'ok' if good else line.get('error') or answer}")
            if not good and heard is not None:
                self.faults.append(f"{whom}: {line['call']}")
        if process.returncode or not out:
            self.faults.append(f"{whom}: the client ended with {process.returncode}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--client", type=Path, required=True, metavar="PYTHON")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="wa-evolution-", dir="/var/tmp") as folder:
        place = Path(folder)
        place.chmod(0o711)  # PostgreSQL runs as a user of its own
        move = Move(place, options.client)
        asyncio.run(move.run(options.server))
    for fault in move.faults:
        print(f"not held: {fault}", file=sys.stderr)
    return 1 if move.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
