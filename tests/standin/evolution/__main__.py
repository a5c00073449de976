"""python -m tests.standin.evolution --port 8080 --control 8081 --instances 1000"""

import argparse
import asyncio
import contextlib
import tempfile
from pathlib import Path

from tests.standin.evolution.certificates import Certificates
from tests.standin.evolution.control import Control, forever
from tests.standin.evolution.instances import Times
from tests.standin.evolution.server import KEY, StandIn


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.standin.evolution")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control", type=int, default=0, help="port for commands")
    parser.add_argument("--instances", type=int, default=0, help="how many there are at first")
    parser.add_argument("--prefix", default="line", help="how their names begin")
    parser.add_argument("--state", default="open", choices=("open", "connecting", "close"))
    parser.add_argument("--version", default="2.3.7", help="2.3.7, 2.4.0-rc2 or 1.8.6")
    parser.add_argument("--fast", action="store_true", help="short times, for tests")
    parser.add_argument("--tls", default="", choices=("", "good", "self"))
    parser.add_argument("--certificates", default="", help="folder for them with --tls")
    return parser.parse_args()


async def main(chosen: argparse.Namespace) -> None:
    times = Times.fast() if chosen.fast else Times()
    tls = None
    if chosen.tls:
        folder = chosen.certificates or tempfile.mkdtemp(prefix="stand-in-certificates-")
        made = Certificates.make(Path(folder))
        tls = made.context(chosen.tls)
        print(f"authority {made.authority}", flush=True)
    standin = await StandIn.open(chosen.version, port=chosen.port, times=times, tls=tls)
    for number in range(chosen.instances):
        standin.add(f"{chosen.prefix}-{number:04}", chosen.state)
    control = await Control.open(standin, chosen.control)
    print(f"url {standin.url} control http://127.0.0.1:{control.port} key {KEY}", flush=True)
    try:
        await forever()
    finally:
        await control.close()
        await standin.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(read_arguments()))
