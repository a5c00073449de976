"""The calls to systemd over D-Bus, and the meaning of its refusals."""

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

from agent.errors import HostError
from agent.host import units
from agent.host.systemd.bus import BusCallFailed, BusGone, Greeting, SystemBus
from agent.host.systemd.unit_cache import PROPERTIES, UNIT

log = logging.getLogger(__name__)

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
SOCKET = "org.freedesktop.systemd1.Socket"
JOB = "org.freedesktop.systemd1.Job"
PROPERTIES_INTERFACE = "org.freedesktop.DBus.Properties"
NO_SUCH_UNIT = f"{SYSTEMD}.NoSuchUnit"
POLKIT_PAUSE = 0.2

# Subscribed before the first job: a signal without a subscriber is lost.
GREETING = Greeting(
    rules=(
        f"type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}'",
        f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES_INTERFACE}',"
        "member='PropertiesChanged',path_namespace='/org/freedesktop/systemd1/unit'",
    ),
    calls=((SYSTEMD, MANAGER_PATH, MANAGER, "Subscribe"),),
)

_DENIED = frozenset(
    {
        "org.freedesktop.DBus.Error.AccessDenied",
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
        "org.freedesktop.DBus.Error.AuthFailed",
    }
)
_POLKIT_MAY_BE_AWAY = _DENIED | {
    "org.freedesktop.DBus.Error.Failed",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.TimedOut",
}


class SystemdCalls:
    def __init__(self, bus: SystemBus) -> None:
        self._bus = bus

    async def units(self, pattern: str) -> list[Any]:
        """The rows of all loaded units of that name: name, ..., active state (3), job (7), ..."""
        rows: list[Any] = (await self.manage("ListUnitsByPatterns", "asas", [], [pattern]))[0]
        return rows

    async def is_loaded(self, unit: str) -> bool:
        """Unlike asking for its properties, this does not load it."""
        try:
            await self.manage("GetUnit", "s", unit)
        except BusCallFailed as error:
            if error.name == NO_SUCH_UNIT:
                return False
            raise
        return True

    async def unit_properties(self, unit: str) -> Mapping[str, Any]:
        path = units.object_path(unit)
        values = await asyncio.gather(
            *(self.property(path, interface, name) for interface, name in PROPERTIES)
        )
        return {name: value for (_, name), value in zip(PROPERTIES, values, strict=True)}

    async def job_exists(self, path: str) -> bool:
        try:
            await self.property(path, JOB, "State")
        except BusCallFailed:
            return False
        return True

    async def booted_at(self) -> int:
        """Microseconds; tells the boots of a container apart, whose kernel boots once."""
        return int(await self.property(MANAGER_PATH, MANAGER, "UserspaceTimestampMonotonic"))

    async def own_unit(self) -> str:
        """The object path of the unit that this process belongs to."""
        path: str = (await self.manage("GetUnitByPID", "u", os.getpid()))[0]
        return path

    async def job_type(self, unit_path: str) -> str:
        """What systemd is doing with a unit: start, stop, restart, ...; "" = nothing."""
        job_id, job = await self.property(unit_path, UNIT, "Job")
        return str(await self.property(job, JOB, "JobType")) if job_id else ""

    async def failed_socket(self, unit: str) -> str:
        """The TCP address of a socket unit that failed to start; "" = it is up, or not wanted."""
        if not await self.is_loaded(unit):
            return ""
        path = units.object_path(unit)
        if await self.property(path, UNIT, "ActiveState") != "failed":
            return ""
        listen = await self.property(path, SOCKET, "Listen")
        addresses = (address for kind, address in listen if kind == "Stream")
        return next((address for address in addresses if ":" in address), "")

    async def allowed(self, method: str, signature: str, *body: Any) -> list[Any]:
        """A call that polkit must allow; asked twice, because polkitd may be restarting."""
        try:
            return await self.manage(method, signature, *body)
        except BusCallFailed as error:
            if error.name not in _POLKIT_MAY_BE_AWAY:
                raise
            log.debug("systemd refused %s (%s); the agent asks once more", method, error)
        await asyncio.sleep(POLKIT_PAUSE)
        return await self.manage(method, signature, *body)

    async def manage(self, method: str, signature: str = "", *body: Any) -> list[Any]:
        return await self._bus.call(
            SYSTEMD, MANAGER_PATH, MANAGER, method, signature=signature, body=body
        )

    async def property(self, path: str, interface: str, name: str) -> Any:
        answer = await self._bus.call(
            SYSTEMD, path, PROPERTIES_INTERFACE, "Get", signature="ss", body=(interface, name)
        )
        return answer[0].value


def refusal(verb: str, unit: str, error: BusCallFailed | BusGone) -> HostError:
    """The error for people: what was refused, and what to look at."""
    name = error.name if isinstance(error, BusCallFailed) else ""
    # Polkit's own unit may be the masked one: systemd passes on why it could not ask.
    if name == f"{SYSTEMD}.UnitMasked" and unit in str(error):
        return HostError(f"cannot {verb} {unit}: an operator masked it", code="masked")
    if name == NO_SUCH_UNIT:
        return HostError(
            f"cannot {verb} {unit}: systemd does not know {units.template_of(unit)};"
            " is wa-agent installed on this machine?"
        )
    if name in _DENIED or "polkit" in str(error):
        return HostError(
            f"cannot {verb} {unit}: systemd denies it ({error}); is polkitd running,"
            " and is wa-agent's rule in /usr/share/polkit-1/rules.d?",
            code="denied",
        )
    return HostError(f"cannot {verb} {unit}: {error}")
