"""What a simulated machine keeps on its disk."""

import copy

from agent.core.fleet.acceptance import Accepted
from agent.core.fleet.promises import Sent
from scripts.simulation.fleet.files import Here


def must_be_kept() -> bool:
    """A machine that cannot write down what it asks for asks for no renewal."""
    return True


class Disk:
    """What a machine knows after a restart of its agent, and after a boot."""

    def __init__(self, boot: str) -> None:
        self.full = False
        """It takes no writes: what is heard cannot be kept."""
        self.takeovers: Sent = {}
        """Takeovers that were sent, and may have happened."""
        self.written, self.written_in = 0.0, boot
        """When it was written last, by the clock of this boot."""
        self.epoch = 0
        self.named: dict[int, frozenset[int]] = {}
        """The rivals that each renewal named, from the last answered one on."""
        self.asked = 0
        """Counts the renewals that were asked for."""
        self.generation = 0
        self.renewals = 0
        self.renewed_in = ""
        """The boot in which a renewal was answered last."""
        self.halted = False
        self.lost = False
        """Records were lost, and what it owns was not read since in settled ones."""
        self.accepted = Accepted()
        self.losses = 0
        self.got: dict[str, tuple[int, int]] = {}
        """The sessions that it owns, with the generation in which it heard of each, and epochs."""
        self.files: dict[str, Here] = {}

    def image(self) -> "Disk":
        """As it is now."""
        made = copy.copy(self)
        made.named, made.got = dict(self.named), dict(self.got)
        made.files = dict(self.files)
        return made
