"""The agent's own turn: created, started, at rest, scraped, killed, adopted."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from scripts.benches.ours import Agent, Client
from scripts.benches.processes import uss
from scripts.benches.rounds import SETTLE, Figures, Times, at_rest, kills
from scripts.benches.site import SETTINGS, Site

SLOW_LOGIN = 3.0
"""Seconds of one login: what WhatsApp takes on a good day."""


async def measure_ours(site: Site, times: Times) -> Figures:
    agent = Agent(site)
    figures = await _measure(agent, times)
    await agent.end()
    await _as_installed(replace(agent, tuned=False), figures)
    return figures


async def measure_many(site: Site, times: Times) -> Figures:
    """The figures that would show it if one session of many cost more than one of a few."""
    agent = Agent(site)
    figures = await _measure(agent, replace(times, starts=1, kills=0))
    await _end(agent, figures)
    return figures


async def measure_one_round(site: Site, times: Times, *, tree: Path, python: Path) -> Figures:
    """Measure what two commits are compared by: `tree` and `python` are those of one of them."""
    # Spawned as on systemd: an older commit has a setting by which it forks them.
    worker = {"warm": False} if (tree / "agent/wings/warm").is_dir() else {}
    agent = Agent(site, worker, tree=tree, python=python)
    figures = await _measure(agent, times)
    await _end(agent, figures)
    await _as_installed(replace(agent, tuned=False), figures)
    return figures


async def measure_slow_logins(site: Site) -> Figures:
    """The start after a boot again, where WhatsApp takes its time for each login."""
    figures = Figures(list)
    slow = Agent(site, settings={**SETTINGS, "login_seconds": SLOW_LOGIN})
    await _create(slow, Figures(list))
    await _as_installed(replace(slow, tuned=False), figures)
    return Figures(list, {f"{key}, slow": runs for key, runs in figures.items()})


async def _measure(agent: Agent, times: Times) -> Figures:
    """All but the start as installed; the agent runs at the end."""
    figures = Figures(list)
    await _create(agent, figures)
    await _starts(agent, times, figures)
    async with Client(agent) as client:
        await at_rest(agent, agent.workers(), times, figures)
        figures["agent uss"].append(uss(agent.agent_pid))
        await _scrapes(client, times, figures)
        chosen = agent.site.ids[: times.kills]
        # Later than the worker says it.
        await kills(agent, agent.workers(), chosen, figures, again=client.connected_again)
    await _adoptions(agent, times, figures)
    return figures


async def _create(agent: Agent, figures: Figures) -> None:
    """An empty agent is asked for all of them at once; each pairs with its phone."""
    await agent.begin()
    async with Client(agent) as client:
        await client.answers()
        begun = time.perf_counter()
        await client.create_all()
        await client.all_connected()
        figures["create"].append(time.perf_counter() - begun)
    await _end(agent, figures)


async def _start(agent: Agent) -> float:
    """Seconds from the agent's own start until all are connected."""
    begun = time.perf_counter()
    await agent.begin()
    async with Client(agent) as client:
        await client.answers()
        await client.all_connected()
        return time.perf_counter() - begun


async def _starts(agent: Agent, times: Times, figures: Figures) -> None:
    """The last start stays up."""
    for turn in range(times.starts):
        figures["start"].append(await _start(agent))
        if turn < times.starts - 1:
            await asyncio.sleep(SETTLE)
            await _end(agent, figures)


async def _end(agent: Agent, figures: Figures) -> None:
    begun = time.perf_counter()
    await agent.end()
    figures["stop"].append(time.perf_counter() - begun)


async def _scrapes(client: Client, times: Times, figures: Figures) -> None:
    await client.scrape()
    for _ in range(times.scrapes):
        begun = time.perf_counter()
        text = await client.scrape()
        figures["scrape client"].append((time.perf_counter() - begun) * 1000)
        figures["series"] = [sum(not line.startswith("#") for line in text.splitlines())]
        await asyncio.sleep(0.2)


async def _adoptions(agent: Agent, times: Times, figures: Figures) -> None:
    """kill -9 the agent, start it at once; the workers must be the same ones."""
    for _ in range(times.adoptions):
        workers = agent.workers()
        async with Client(agent) as client:
            lost_before = await client.losses()
        begun = time.perf_counter()
        agent.kill()
        killed = time.perf_counter() - begun
        figures["adoption"].append(killed + await _start(agent))
        async with Client(agent) as client:
            again = await client.losses() - lost_before
        others = sum(agent.workers().get(id) != pid for id, pid in workers.items())
        figures["adoption lost"].append(others + max(again, 0))
        await asyncio.sleep(SETTLE)


async def _as_installed(agent: Agent, figures: Figures) -> None:
    """After a boot, one session after the other, by the budget of logins."""
    figures["start as installed"].append(await _start(agent))
    await agent.end()
