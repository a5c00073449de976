"""How often sessions log in: within the budget, never while banned, never when stopped."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from agent.config.load import load_config
from agent.core.admission import LoginBudget, StartPolicy
from agent.engines.sandbox.server import Server
from agent.worker.life import MEMBER
from tests.standin.evolution.instances import Instance

KNOWN_WITHIN = 60.0
"""Seconds in which the agent hears of a ban or of a stop, and ends what it had begun."""


@dataclass
class Logins:
    """`wrongs`: what should not have been."""

    policy: StartPolicy = field(default_factory=lambda: load_config(None, {}).start)
    count: int = 0
    wrongs: list[str] = field(default_factory=list)
    stopped: dict[str, float] = field(default_factory=dict)
    """Those that a person stopped, and when."""
    banned: dict[str, float] = field(default_factory=dict)
    """Those that have a ban, and since when the agent knows or hears of it; inf: not yet."""
    by_itself: set[str] = field(default_factory=set)
    """Those whose worker ends and is started by its host."""

    def __post_init__(self) -> None:
        # Sums of 0.1 s end a rounding below the login that they make.
        self._lenient = replace(self.policy, login_every=self.policy.login_every * 0.999)
        self.new_life()

    def new_life(self) -> None:
        """An agent that starts has its whole budget."""
        self._budget = LoginBudget()

    def note(self, id: str, *, banned: bool) -> None:
        now = asyncio.get_running_loop().time()
        self.count += 1
        if now > self.stopped.get(id, now) + KNOWN_WITHIN:
            self.wrongs.append(f"{id} logs in, and an operator had stopped it")
        if banned and now > self.banned.get(id, now) + KNOWN_WITHIN:
            self.wrongs.append(f"{id} logs in while it is banned")
        if banned and self.banned.get(id) == math.inf:
            self.banned[id] = now
        if id in self.by_itself:
            self.by_itself.discard(id)
        elif self._budget.take(self._lenient, now) is not None:
            self.wrongs.append(f"{id} logs in, and the budget has no login left")


@contextmanager
def counted(logins: Logins) -> Iterator[None]:
    """Each login of the sandbox, and each that a request to the stand-in begins."""
    connect, asked, restart = Server.connect, Instance.asked_to_connect, Instance.restart

    async def connected(self: Server) -> Any:
        active = self._faults.active  # the network refuses first: no ban is heard of then
        logins.note(MEMBER.get(), banned=bool(active("temp-ban") and not active("drop")))
        return await connect(self)

    def asked_to_connect(self: Instance, phone: str | None) -> None:
        logins.note(self.name, banned=False)
        asked(self, phone)

    def restarted(self: Instance) -> None:
        logins.note(self.name, banned=False)
        restart(self)

    changes: Any = {"asked_to_connect": asked_to_connect, "restart": restarted}
    with patch.object(Server, "connect", connected), patch.multiple(Instance, **changes):
        yield
