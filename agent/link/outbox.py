"""A worker's messages that its agent has not read yet. Bounded; the newest claim stays, and what
does not fit is told as sums."""

from collections import OrderedDict, deque
from collections.abc import Mapping

from agent.core.findings.left_out import LeftOut
from agent.core.words import KEPT, Claim, Happening, InstanceId, ServerClaim
from agent.link.messages import Claimed, Happened, ServerClaimed


class Outbox:
    def __init__(self, run: str, most_happenings: int) -> None:
        self.dropped = 0
        """Happenings that no agent read in time, one by one."""
        self._run = run
        self._most = most_happenings
        self._server: ServerClaim | None = None
        self._server_told = False
        self._claims: OrderedDict[InstanceId, Claim] = OrderedDict()
        self._kept: dict[InstanceId, Happened] = {}
        self._happenings: deque[Happened] = deque()
        self._left_out: dict[InstanceId, LeftOut] = {}

    @property
    def waits(self) -> bool:
        first = self._tells_server or self._claims or self._kept
        return bool(first or self._left_out or self._happenings)

    @property
    def _tells_server(self) -> bool:
        return self._server is not None and not self._server_told

    def claim(self, id: InstanceId, claim: Claim) -> None:
        self._claims[id] = claim

    def server_claim(self, claim: ServerClaim) -> None:
        self._server, self._server_told = claim, False

    def happened(self, id: InstanceId, happening: Happening) -> None:
        if happening.kind == KEPT:
            self._kept[id] = Happened(id, self._run, happening)
            return
        if len(self._happenings) >= self._most:
            oldest = self._happenings.popleft()
            self._left_out.setdefault(oldest.id, LeftOut()).add(oldest.happening)
            self.dropped += 1
        self._happenings.append(Happened(id, self._run, happening))

    def new_agent(self, claims: Mapping[InstanceId, Claim]) -> None:
        """It hears of everything that is claimed at this moment."""
        self._server_told = False
        self._claims.update(claims)

    def no_agent(self) -> None:
        self._claims.clear()

    def pop(self) -> Claimed | ServerClaimed | Happened:
        """The next one to tell; only while something waits."""
        if self._server is not None and not self._server_told:
            self._server_told = True
            return ServerClaimed(self._run, self._server)
        if self._claims:
            # Oldest first: of many sessions none waits for ever behind those that flap.
            id, claim = self._claims.popitem(last=False)
            return Claimed(id, self._run, claim)
        if self._kept:
            return self._kept.pop(next(iter(self._kept)))
        if self._left_out:  # older than all that waits
            id = next(iter(self._left_out))
            return Happened(id, self._run, self._left_out.pop(id).told())
        return self._happenings.popleft()
