"""How a simulated agent takes its place: not where another one may run as the same machine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.simulation.fleet.machine import Machine


class Joining:
    def __init__(self) -> None:
        self.joined = False
        self.again = False
        """The database did not know this machine: what it owned then is read again."""
        self.heard = 0
        """Counts the answers."""
        self._number = -1
        self._since = 0.0
        """When that number of the other agent was read first."""
        self._read_at = 0.0

    def ask(self, machine: "Machine") -> None:
        run, database = machine.run, machine.database
        known, place = machine.disk.renewals, machine.place
        if machine.clock >= self._read_at + machine.world.policy.ttl / 2:
            self._number = -1
        still = machine.clock >= self._since + machine.world.policy.ttl
        watched = self._number if still else -1

        def there() -> None:
            if not database.refuses:
                answer = database.join(machine.id, place, known, watched)
                machine.world.send("db", machine.name, lambda: machine.do(run, hear, answer))

        def hear(answer: tuple[bool, int]) -> None:
            self.heard += 1
            self._read_at = machine.clock
            self.joined, number = answer
            if self.joined:
                machine.peers[machine.id] = machine
            elif number != self._number:
                self._number, self._since = number, machine.clock

        machine.world.send(machine.name, "db", there)

    def refused(self, machine: "Machine") -> None:
        """Another agent joined as this machine."""
        self.joined, self.again = False, True
        machine.disk.renewed_in = ""
