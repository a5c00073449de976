"""Calls every method of systemd's Manager, and of a unit's own object, as the user that runs it.

argv: the unit.
stdout: JSON object, call → "ok" or the error's name. Every property that any of
the interfaces shows is set, with a text of several lines where it takes a text.
"""

import asyncio
import json
import sys
from itertools import count
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.signature import SignatureTree

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = "/org/freedesktop/systemd1"
LINES = 'x\n[Service]\nUser=root\nExecStart=\nExecStart=+/bin/sh -c "id>/root/pwned"'
SOME = 20
"""Systemd asks polkit before it reads the properties: in other ways than by the Manager on a loaded
unit, until the next boot, one property in SOME is set."""
READ_ONLY = ("Get", "List", "Load", "Lookup", "Dump", "Subscribe", "Unsubscribe")


def sample(kind: Any, texts: list[str]) -> Any:
    """A value of that type; its first texts are those given."""
    token = kind.token
    if token == "s":
        return texts.pop(0) if texts else LINES
    if token == "b":
        return True
    if token == "d":
        return 1.0
    if token == "o":
        return "/"
    if token == "v":
        return Variant("s", LINES)
    if token == "a" and kind.children[0].token == "{":
        key, value = kind.children[0].children
        return {sample(key, texts): sample(value, texts)}
    if token == "a" and kind.children[0].token == "y":
        return b"\0"
    if token == "a":
        return [sample(kind.children[0], texts)]
    if token in "({":
        return [sample(child, texts) for child in kind.children]
    return 1


def body(signature: str, *texts: str) -> list[Any]:
    left = list(texts)
    return [sample(kind, left) for kind in SignatureTree(signature).types]


class Asker:
    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.answers: dict[str, str] = {}
        self._numbers = count()

    async def ask(  # noqa: PLR0917
        self, name: str, path: str, interface: str, member: str, signature: str, values: list[Any]
    ) -> None:
        message = Message(
            destination=SYSTEMD,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=values,
        )
        async with asyncio.timeout(20):
            reply = await self.bus.call(message)
        assert reply is not None
        failed = reply.message_type is MessageType.ERROR
        self.answers[f"{next(self._numbers)} {name}"] = reply.error_name if failed else "ok"

    async def every_method(self, path: str, unit: str, skip: frozenset[str]) -> None:
        node = await self.bus.introspect(SYSTEMD, path)
        for interface in node.interfaces:
            if not interface.name.startswith(SYSTEMD):
                continue
            for method in interface.methods:
                signature = "".join(one.signature for one in method.in_args)
                if "h" in signature or method.name.startswith(READ_ONLY) or method.name in skip:
                    continue
                for texts in ((unit, "replace"), (f"{unit}\n{LINES}", "replace"), (LINES, LINES)):
                    name = f"{interface.name}.{method.name}{texts!r}"
                    values = body(signature, *texts)
                    await self.ask(name, path, interface.name, method.name, signature, values)

    async def every_property(self, path: str, target: str, runtime: bool, step: int = 1) -> None:
        """By the Manager: each property that the object at `path` shows, set on the unit
        `target`."""
        for _, one, value in (await self._properties(path))[::step]:
            await self.ask(
                f"SetUnitProperties {target}: {one} runtime={runtime}",
                MANAGER,
                f"{SYSTEMD}.Manager",
                "SetUnitProperties",
                "sba(sv)",
                [target, runtime, [[one, value]]],
            )

    async def every_property_of(self, path: str) -> None:
        """By the object at `path` itself, as D-Bus and as systemd have it."""
        for number, (interface, one, value) in enumerate(await self._properties(path)):
            name = f"Properties.Set {interface}.{one}"
            given = [interface, one, value]
            await self.ask(name, path, "org.freedesktop.DBus.Properties", "Set", "ssv", given)
            if path != MANAGER and number % SOME == 0:
                name, given = f"SetProperties {path}: {one}", [True, [[one, value]]]
                await self.ask(name, path, f"{SYSTEMD}.Unit", "SetProperties", "ba(sv)", given)

    async def _properties(self, path: str) -> list[tuple[str, str, Variant]]:
        node = await self.bus.introspect(SYSTEMD, path)
        return [
            (interface.name, one.name, Variant(one.signature, body(one.signature)[0]))
            for interface in node.interfaces
            for one in interface.properties
        ]


async def main(unit: str) -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    asker = Asker(bus)
    await ask_all(bus, asker, unit)
    bus.disconnect()
    print(json.dumps(asker.answers))


async def ask_all(bus: MessageBus, asker: Asker, unit: str) -> None:
    reply = await bus.call(
        Message(
            destination=SYSTEMD,
            path=MANAGER,
            interface=f"{SYSTEMD}.Manager",
            member="GetUnit",
            signature="s",
            body=[unit],
        )
    )
    assert reply is not None
    assert reply.message_type is not MessageType.ERROR, reply.body
    path = reply.body[0]
    await asker.every_property(path, unit, True)
    await asker.every_property(path, unit, False, SOME)
    await asker.every_property(path, unit.replace("@", "@fresh"), False, SOME)
    await asker.every_property(MANAGER, unit, True)
    await asker.every_property_of(path)
    await asker.every_property_of(MANAGER)
    granted = frozenset({"StartUnit", "StopUnit", "RestartUnit", "ResetFailedUnit"})
    # No rule can tell the flags or the mode of these: they are start, stop and restart too.
    granted |= {"StartUnitWithFlags", "StartUnitReplace", "EnqueueUnitJob"}
    await asker.every_method(MANAGER, unit, granted)
    await asker.every_method(MANAGER, "systemd-logind.service", frozenset())
    await asker.every_method(path, unit, frozenset({"Start", "Stop", "Restart", "ResetFailed"}))


asyncio.run(main(sys.argv[1]))
