"""Ask root's helper for the limits of one worker: one line over its socket, one line back.

The agent may not set properties of units itself: with systemd that right is root's, whatever
the unit. `limits_helper` is the other side.
"""

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
    """Says once that limits cannot be set, and once that they can be again."""

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
