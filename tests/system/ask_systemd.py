"""Makes D-Bus calls to systemd's manager as its own user, and prints how each was answered.

stdin: JSON list of [method, signature, arguments]; stdout: JSON list of "ok" or an error's name.
"""

import asyncio
import json
import sys

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus


def real(value):
    """["variant", signature, value] → Variant, at any depth."""
    if isinstance(value, list):
        if value[:1] == ["variant"]:
            return Variant(value[1], real(value[2]))
        return [real(each) for each in value]
    return value


async def main() -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    answers = []
    for method, signature, arguments in json.load(sys.stdin):
        reply = await bus.call(
            Message(
                destination="org.freedesktop.systemd1",
                path="/org/freedesktop/systemd1",
                interface="org.freedesktop.systemd1.Manager",
                member=method,
                signature=signature,
                body=real(arguments),
            )
        )
        answers.append(reply.error_name if reply.message_type is MessageType.ERROR else "ok")
    bus.disconnect()
    print(json.dumps(answers))


asyncio.run(main())
