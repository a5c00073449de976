"""The last accepted loss of records that this machine has seen.

A machine that has not seen it gets no promise: it may run what another one owns by the records
that are left.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accepted:
    loss: str = ""
    """The last one, as the database names it; "" = this machine has not heard it yet."""
    changed: bool = False
    """The database named another one before."""

    def heard(self, loss: str, *, halted: bool) -> "Accepted":
        """While the fleet is halted, the acceptance itself may be among the lost records."""
        if loss in ("", self.loss) or (halted and self.loss):
            return self
        return Accepted(loss, changed=self.changed or bool(self.loss))

    def follows(self, before: "Accepted") -> bool:
        """A loss was accepted since then."""
        return self.changed and self != before

    def refuses(self, named: str) -> bool:
        """`named` by the machine that asks for a promise; "" = by a version that names none."""
        return named != self.loss if named and self.loss else self.changed
