"""Ask root's helper (`limits_helper`) for the limits of one worker: one line over its socket, one
line back. The right to set properties of units is root's."""

import asyncio
import contextlib
import logging
from pathlib import Path

from agent.core.model import InstanceId
from agent.errors import HostError
from agent.host.base import Limits

log = logging.getLogger(__name__)

SOCKET = Path("/run/wa-limits.sock")
ANSWER_WITHIN = 5.0
LONGEST_ANSWER = 256


class LimitsClient:
    """Logs once that limits cannot be set, and once that they can be again."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path
        self._broken = False

    async def apply(self, instance: InstanceId, limits: Limits) -> bool:
        """Whether the loaded unit has these limits now; False also where it is not loaded."""
        try:
            answer = await self._ask(instance, limits)
            if answer not in ("ok", "not-loaded"):
                raise HostError(f"wa-limits.service answered {answer!r}")
        except (HostError, OSError, TimeoutError) as error:
            cause = str(error) or f"no answer within {ANSWER_WITHIN:g} s"
            log.log(
                logging.DEBUG if self._broken else logging.WARNING,
                "cannot set the limits of %s: %s; it runs with the limits of its unit;"
                " `systemctl status wa-limits.socket` says more",
                instance,
                cause,
            )
            self._broken = True
            return False
        if self._broken:
            log.info("wa-limits.service sets the limits of single workers again")
            self._broken = False
        return answer == "ok"

    async def forget(self, instance: InstanceId) -> None:
        """Wake the helper: before it ends it removes what systemd kept for unloaded units."""
        with contextlib.suppress(OSError, TimeoutError):
            await self._ask(instance, Limits())

    async def _ask(self, instance: InstanceId, limits: Limits) -> str:
        numbers = (limits.memory_high, limits.memory_max, limits.tasks_max)
        words = (instance, *("-" if number is None else str(number) for number in numbers))
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=LONGEST_ANSWER)
            try:
                writer.write((" ".join(words) + "\n").encode("ascii"))
                await writer.drain()
                answer = await reader.read(LONGEST_ANSWER)
            finally:
                writer.close()
        return answer.decode("ascii", "replace").strip()


class UnitLimits:
    """The limits that each worker should have, and those that its unit has."""

    def __init__(self, client: LimitsClient) -> None:
        self._client = client
        self._wanted: dict[InstanceId, Limits] = {}
        self._applied: dict[InstanceId, Limits] = {}
        """Of each unit, for as long as systemd has it."""

    def wants(self, instance: InstanceId, limits: Limits) -> bool:
        """Note the limits that it should have; whether its unit has others."""
        self._wanted[instance] = limits
        return self._applied.get(instance) != limits

    def unit_loaded(self, instance: InstanceId) -> None:
        """systemd has a new unit, with the limits of its file."""
        self._applied.pop(instance, None)

    async def apply(self, instance: InstanceId) -> None:
        limits = self._wanted.get(instance)
        if limits is None or self._applied.get(instance) == limits:
            return
        if await self._client.apply(instance, limits):
            self._applied[instance] = limits

    async def keep_only(self, loaded: frozenset[InstanceId]) -> None:
        """Limits last as long as systemd has the unit; the next start sets them again."""
        gone = self._applied.keys() - loaded
        for instance in gone:
            del self._applied[instance]
        if gone:
            await self._client.forget(min(gone))
