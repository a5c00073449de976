"""What lets an act end a pairing, and what a person confirmed. recovery/pairing.py decides."""

from dataclasses import dataclass
from enum import StrEnum

from agent.core.model import SessionFiles


class Consent(StrEnum):
    """What a person has confirmed of a repair or an order, from the least to the most."""

    NONE = ""
    PAIRING = "pairing"
    """The pairing may end."""
    PASSKEY = "passkey"
    """It may end though its account needs a passkey to link again."""


class Ground(StrEnum):
    """Why a pairing may end."""

    NO_PAIRING = "no_pairing"
    ENDED = "ended"
    """WhatsApp ended it, or an earlier step of the same repair."""
    PERSON = "person"
    """A person confirmed it."""
    FAILS_ALONE = "fails_alone"
    """WhatsApp is reached, others are connected, and every milder step was in vain."""
    DAMAGED_FILES = "damaged_files"
    """Its files cannot be read, and no copy of them can be put back."""
    LOST_STORE = "lost_store"
    """It came up unpaired, and no try over a whole store brought it back."""
    SAME_PAIRING = "same_pairing"
    """A good copy of this very pairing takes the place of its files."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Only recovery/pairing.py makes one."""

    ground: Ground

    def stands(self, files: SessionFiles) -> bool:
        """Whether it still holds once the worker has stopped and its files can be looked at."""
        return self.ground is not Ground.DAMAGED_FILES or files is not SessionFiles.WHOLE


@dataclass(frozen=True, slots=True)
class Kept:
    """The pairing is kept."""

    code: str
    why: str
    """A sentence without its full stop."""
    todo: str
    """What a person may type."""
    unknown: bool = False
    """Whether there is one is not known."""

    @property
    def sentence(self) -> str:
        kept = "the pairing is kept"
        if self.unknown:
            kept = "it may have a pairing, so nothing is tried that could end it"
        return f"{self.why}; {kept}. {self.todo}"
