"""What an archive or another program's store holds: one session, looked at and not touched."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class FoundSession:
    program: str
    """Who wrote it: "Baileys", "JSON", ..."""
    name: str
    """As the source calls it."""
    account: str = ""
    """The account's number, from the credentials."""
    device: str = ""
    """The linked device that it is; "" = unknown."""
    written: float | None = None
    """When the source last wrote it, as far as it tells."""
    pre_keys: int = 0
    records: int = 0
    problem: str = ""
    """Why it cannot be moved; "" when it can."""
    code: str = ""
    """The stable word of that problem."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many records of each kind cannot be read or stored: they stay behind."""
    in_use: str = ""
    """Why it counts as in use; "" = it does not."""
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Of another program's session: its keys by Baileys' own names, as JSON text."""

    @property
    def left_out_sentence(self) -> str:
        if not self.left_out:
            return ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))
        return f"left out, for they cannot be read or stored: {kinds}; each is renewed when needed"

    @property
    def refused_while_used(self) -> "FoundSession":
        """What its program is just writing looks damaged: that it runs says more."""
        if not self.in_use or self.code not in ("", "damaged"):
            return self
        return replace(self, problem=self.in_use, code="in_use")
