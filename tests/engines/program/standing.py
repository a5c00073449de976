"""Programs that tell nothing, one of which hangs: prints which of them would be ended. A process of
its own, because an end of a program sweeps all that its worker started."""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from agent.core.findings.crypto_patterns import CryptoFinding
from agent.engines.program import standstill
from agent.engines.program.output import Output
from agent.engines.program.process import Ears, Process
from agent.engines.program.standstill import Standstill
from agent.engines.tasks import Tasks

standstill.TURNS_WITHIN, standstill.ASK_EVERY = 2.0, 0.2
NODES = {
    "hangs": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
    "its loop turns": "setInterval(() => {}, 1e6)",
    "it waits for a child": "require('child_process').execFileSync('sleep', ['600'])",
    "it works": "for (;;);",
}


async def main(node: str, folder: str) -> None:
    commands = {name: [node, "-e", program] for name, program in NODES.items()}
    commands["no Node"] = [sys.executable, str(Path(__file__).with_name("bot.py")), "quiet"]
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        looks = {name: await started(run, folder, stack) for name, run in commands.items()}
        while not (found := [name for name, its in looks.items() if await its.why_end()]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print(found, await looks["hangs"].why_end())
        # Of a service of systemd's nothing is known either.
        looks["hangs"].run.noticed = True
        print(repr(await looks["hangs"].why_end()))


async def started(command: list[str], folder: str, stack: AsyncExitStack) -> Standstill:
    looks: list[Standstill] = []

    def hear(event: Mapping[str, object]) -> None:
        looks[0].note_node(event.get("pid"))

    def found(_finding: CryptoFinding) -> None: ...

    def crashed(error: BaseException) -> None:
        raise AssertionError from error

    ears = Ears(Output(found, ()), hear, lambda _notice: None, lambda _why: None, Tasks(crashed))
    environment = {"PATH": os.environ["PATH"], "WA_SESSION": folder}
    run = await Process.start(command, environment, folder, ears, preloads=True)
    stack.push_async_callback(run.kill)
    looks.append(Standstill(run))
    while "-e" in command and not looks[0].node:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return looks[0]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
