"""Whole folders under a running agent: moved behind a link, swapped between two sessions and
swapped back, with files of a senseless size. Nothing of them is replaced or put into the trash, and
what is back where it belongs runs again by itself."""

import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.daemon.conftest import RunningAgent

Step = dict[str, Any]
Until = Callable[[str, Callable[[dict[str, Any]], bool]], Awaitable[dict[str, Any]]]
HOWS = ("linked", "swapped", "sparse", "away", "away")
MOST_COPIED = 32 << 20
"""Bytes of a snapshot beside a file of a senseless size."""


def draw_folder(chance: Random, sessions: tuple[str, ...]) -> Step:
    return {
        "where": "folder",
        "how": chance.choice(HOWS),
        "session": chance.choice(sessions),
        "what": chance.choice(["session", "session/sandbox.json"]),
        "size": chance.choice([1 << 30, 2 << 30, 50 << 30]),
        "name": chance.choice(["session-1.0.json", "core", "a b.tmp"]),
        "stopped": chance.random() < 0.5,
    }


async def play_folder(agent: RunningAgent, until: Until, step: Step, other: str) -> None:
    before = _trash(agent)
    match step["how"]:
        case "linked":
            await _linked(agent, until, step)
        case "swapped":
            await _swapped(agent, until, step["session"], other)
        case "sparse":
            await _sparse(agent, step)
        case "away":
            await _away(agent, until, step)
    more = _trash(agent) - before
    # The files that were away came back from a snapshot: the rest of before is in the trash.
    assert not more or step["how"] == "away", f"put into the trash: {more}"


def _connected(shown: dict[str, Any]) -> bool:
    return bool(shown["connection_status"] == "CONNECTED")


def _sessions(agent: RunningAgent) -> Path:
    return agent.state / "sessions"


def _trash(agent: RunningAgent) -> set[str]:
    return {it.name for it in (_sessions(agent) / ".trash").glob("*") if it.is_dir()}


async def _linked(agent: RunningAgent, until: Until, step: Step) -> None:
    """Moved to another disk, a link in its place, while the session or the agent is stopped."""
    id, path = step["session"], _sessions(agent) / step["session"] / step["what"]
    moved = agent.state.parent / f"moved-{path.name}"
    last = (await agent.show(id))["events"][0]["cursor"]
    stop = agent.stop() if step["stopped"] else agent.do("POST", f"/api/instance/{id}/stop")
    await stop
    if not step["stopped"]:
        await until(id, lambda shown: not shown["unit"]["main_pid"])
    path.rename(moved)
    path.symlink_to(moved)
    start = agent.start() if step["stopped"] else agent.do("POST", f"/api/instance/{id}/start")
    await start

    def is_named(shown: dict[str, Any]) -> bool:
        said = [event["sentence"] for event in shown["events"] if event["cursor"] > last]
        told = [each for each in [shown["sentence"], *said] if "link" in each]
        damaged = [each for each in said if "damaged" in each or "restore" in each]
        assert not damaged, f"what is behind a link is whole: {damaged[0]}"
        return bool(told) or _connected(shown)

    await until(id, is_named)
    path.unlink()
    moved.rename(path)
    await until(id, _connected)


async def _away(agent: RunningAgent, until: Until, step: Step) -> None:
    """A mount that went: under a session that runs, or before it starts."""
    id, path = step["session"], _sessions(agent) / step["session"] / step["what"]
    moved, before = agent.state.parent / "away", await agent.show(id)
    if step["stopped"]:
        await agent.do("POST", f"/api/instance/{id}/stop")
        await until(id, lambda shown: not shown["unit"]["main_pid"])
    path.rename(moved)
    last = before["events"][0]["cursor"]
    if step["stopped"]:
        await agent.do("POST", f"/api/instance/{id}/start")
    else:
        os.kill(before["unit"]["main_pid"], signal.SIGKILL)

    def is_back_or_names_it(shown: dict[str, Any]) -> bool:
        assert shown["connection_status"] != "QR_REQUIRED", (
            "its files are away, and it shows a code"
        )
        said = [event["sentence"] for event in shown["events"] if event["cursor"] > last]
        own = shown["unit"]["main_pid"] not in (0, before["unit"]["main_pid"])
        names = any(path.name in each for each in [shown["sentence"], *said])
        return names or (own and _connected(shown))

    shown = await until(id, is_back_or_names_it)
    if not _connected(shown):
        if not path.exists():
            moved.rename(path)
        await until(id, _connected)
    if moved.is_dir():
        shutil.rmtree(moved)
    else:
        moved.unlink(missing_ok=True)
    await agent.do("POST", f"/api/instance/{id}/snapshots")


async def _swapped(agent: RunningAgent, until: Until, one: str, other: str) -> None:
    """As by a restore from a backup under the wrong names, seen by a new agent; then swapped back
    under it."""
    await agent.stop()
    _swap(_sessions(agent), one, other)
    await agent.start()
    for id in (one, other):
        await until(id, lambda shown: not _connected(shown) and bool(shown["sentence"]))
    _swap(_sessions(agent), one, other)
    for id in (one, other):
        await until(id, _connected)


def _swap(sessions: Path, one: str, other: str) -> None:
    (sessions / one).rename(aside := sessions / ".aside")
    (sessions / other).rename(sessions / one)
    aside.rename(sessions / other)


async def _sparse(agent: RunningAgent, step: Step) -> None:
    """A snapshot of it is as large as what the session needs, or a refusal names the file."""
    id = step["session"]
    stray = _sessions(agent) / id / "session" / step["name"]
    with stray.open("wb") as file:
        file.truncate(step["size"])
    before = _used(_sessions(agent) / ".snapshots")
    try:
        status, said = await agent.ask("POST", f"/api/instance/{id}/snapshots")
        assert status < 300 or (status == 507 and step["name"] in said["message"]), said
        more = _used(_sessions(agent) / ".snapshots") - before
        assert more < MOST_COPIED, f"its snapshot takes {more >> 20} MiB of the disk"
    finally:
        stray.unlink()
    await agent.do("POST", f"/api/instance/{id}/snapshots")


def _used(folder: Path) -> int:
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_blocks * 512 for path in paths)
