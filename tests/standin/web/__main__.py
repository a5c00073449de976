"""Serve the page and its phone until Ctrl-C: python -m tests.standin.web --port 8480"""

import argparse
import asyncio
import sys

from tests.standin.web.server import StandIn


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.standin.web", description=__doc__)
    parser.add_argument("--port", type=int, default=8480, help="port on 127.0.0.1, default 8480")
    try:
        asyncio.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        return 130
    except (OSError, OverflowError) as error:
        print(f"cannot serve the stand-in: {error}; --port 0 takes a free one", file=sys.stderr)
        return 4
    return 0


async def serve(port: int) -> None:
    stand_in = await StandIn.open(port=port)
    try:
        url = stand_in.url
        print(
            f"the page:    {url}\n"
            f"its phone:   {url}phone   (scan, write, log out, make trouble)\n"
            "an instance with a real browser on it (`wa-agent doctor` names missing parts; the\n"
            f"bundle: {sys.executable} -m agent.engines.web.fetch STATE/cache):\n"
            f"  wa-agent create webdemo --engine web --set url='{url}?name=webdemo'\n"
            "  wa-agent screenshot webdemo webdemo.png\n"
            "Ctrl-C ends it.",
            flush=True,
        )
        await asyncio.Event().wait()
    finally:
        await stand_in.close()


if __name__ == "__main__":
    sys.exit(main())
