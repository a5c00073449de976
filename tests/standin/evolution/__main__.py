"""python -m tests.standin.evolution --instances 1000: many sessions, in a process of its own.

POST /fault {fault} sets a fault of the server, POST /stats says what it was asked.
"""

import argparse
import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from tests.standin.evolution.instances import Times
from tests.standin.evolution.server import KEY, StandIn


async def main(count: int) -> None:
    standin = await StandIn.open(times=Times.fast())
    for number in range(count):
        standin.add(f"line-{number:04}", "open")

    async def obey(request: web.Request) -> web.Response:
        told: dict[str, Any] = await request.json()
        if request.path == "/fault":
            await standin.front.set(told["fault"])
        states = Counter(each.state for each in standin.instances.values())
        asked = {"asked": standin.asked, "most_at_once": standin.most_at_once}
        return web.json_response({**asked, "states": states})

    app = web.Application()
    app.router.add_post("/{verb}", obey)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    print(f"url {standin.url} control http://127.0.0.1:{port} key {KEY}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.standin.evolution")
    parser.add_argument("--instances", type=int, default=0)
    asyncio.run(main(parser.parse_args().instances))
