"""One circuit breaker per backend: failures of its server in a row open it, one trial closes it.

Calls for its sessions count, but not where the server cannot be reached. While the circuit is open
the agent starts, connects and repairs none of its sessions. Checks go on: once all of `CALM`
seconds were quick, one session tries before the pause ends.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.backends.http import ServerDown
from agent.clock import boot_now
from agent.core.breaker import Breaker, BreakerPolicy, BreakerState
from agent.core.model import InstanceId
from agent.errors import EngineError

ACTS = frozenset({"connect", "restart", "renew", "regenerate_keys"})
"""Calls that make a server work for a session."""
QUICK, CALM = 1.0, 30.0
"""Seconds: of a quick check, and for which all checks must be quick."""
Call = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(slots=True)
class Circuit:
    policy: Callable[[], BreakerPolicy]
    changed: Callable[[BreakerState], None]
    """Called when it opens, when it closes, and when quick checks let one session try."""
    breaker: Breaker = field(default_factory=Breaker)
    trial: InstanceId | None = None
    """The session whose call is the trial of a half-open circuit."""
    calm_since: float | None = None
    """Boot time of the first of the checks that were all quick, without a failure since."""

    @property
    def state(self) -> BreakerState:
        state = self.breaker.state(boot_now(), self.policy())
        return BreakerState.HALF_OPEN if self.trial is not None else state

    @property
    def sentence(self) -> str:
        """Why the agent tries none of its sessions; "" while it is closed."""
        state, failures = self.state, self.breaker.failures
        if state is BreakerState.CLOSED:
            return ""
        if state is BreakerState.HALF_OPEN:
            return f"its circuit is half open after {failures} failures: one session tries"
        left = self.breaker.opens_in(boot_now(), self.policy())
        return f"its circuit is open for at most {left:.0f} s more after {failures} failures"

    def lets(self, id: InstanceId) -> bool:
        """True if this session may wait for its turn, or has it."""
        return self.breaker.may_try(boot_now(), self.policy()) or id == self.trial

    def begin(self, id: InstanceId) -> bool:
        """True if this session may act now; the first one while half open is the trial."""
        if not self.lets(id):
            return False
        if id != self.trial and self.state is BreakerState.HALF_OPEN:
            self.trial, self.breaker = id, replace(self.breaker, trial_at=boot_now())
        return True

    def checked(self, *, up: bool, seconds: float) -> None:
        """A check ended after `seconds`; `up`: the server is up and its list came."""
        if not up or seconds > QUICK:
            self.calm_since = None
            return
        now = boot_now()
        self.calm_since = now if self.calm_since is None else self.calm_since
        if self.state is BreakerState.OPEN and now - self.calm_since >= CALM:
            self.breaker = replace(self.breaker, opened_at=now - self.policy().pause)
            self.changed(BreakerState.HALF_OPEN)

    async def act(self, id: InstanceId, do: str, call: Call) -> Mapping[str, Any]:
        """Call the server for a session if the circuit allows it, and count how it answered."""
        if do in ACTS and not self.begin(id):
            raise EngineError(f"cannot {do} {id}: {self.sentence}", code="circuit_open")
        try:
            answer = await call()
        except ServerDown as down:
            if do in ACTS and down.reached:
                self._failed()
            raise
        else:
            if do in ACTS or id == self.trial:
                self.close()
            return answer
        finally:
            if id == self.trial:  # cancelled, or refused by the session: another one may try
                self.trial, self.breaker = None, replace(self.breaker, trial_at=None)

    def close(self) -> None:
        was, self.breaker = self.state, Breaker()
        self.trial = None
        if was is not BreakerState.CLOSED:
            self.changed(BreakerState.CLOSED)

    def _failed(self) -> None:
        was = self.state
        self.breaker = self.breaker.after_failure(boot_now(), self.policy())
        self.trial = self.calm_since = None
        if was is BreakerState.CLOSED and self.state is not BreakerState.CLOSED:
            self.changed(BreakerState.OPEN)
