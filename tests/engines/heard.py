"""The worker's side of an engine: everything that it says."""

from agent.core.words import Claim, Happening
from agent.engines.base import KeepsNothing


class Heard(KeepsNothing):
    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.happenings: list[Happening] = []
        self.errors: list[BaseException] = []

    def claim(self, claim: Claim) -> None:
        self.claims.append(claim)

    def happened(self, happening: Happening) -> None:
        self.happenings.append(happening)

    def progress(self) -> None: ...

    def crashed(self, error: BaseException) -> None:
        self.errors.append(error)

    @property
    def last(self) -> Claim:
        return self.claims[-1]

    def count(self, kind: str, **detail: str) -> int:
        return sum(
            each.kind == kind and detail.items() <= each.detail.items() for each in self.happenings
        )
