"""Hears the fleet's notifications. They only wake: a missed one costs one renewal."""

import asyncio
import logging
import random
from collections.abc import Callable

from agent.errors import WaError
from agent.fleet.postgres.connection import Connection, call_within, connect, readable_errors
from agent.fleet.waiting import Notice

log = logging.getLogger(__name__)

CHANNEL = "wa_agent"
KINDS = ("changes", "command")
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_WITHIN = 10.0


async def listen(address: str, on_notify: Callable[[Notice], None]) -> None:
    wait, away = _FIRST_WAIT, False
    while True:
        try:
            async with await connect(address) as connection:
                with readable_errors():
                    asked = connection.execute(f"LISTEN {CHANNEL}".encode())
                    await call_within(_WITHIN, asked, connection.pgconn.finish)
                    if away:
                        log.info("the fleet's database sends notices again")
                    wait, away = _FIRST_WAIT, False
                    for kind in KINDS:
                        on_notify(Notice(kind, None))
                    await _hear(connection, on_notify)
        except WaError as error:
            if not away:
                log.warning(
                    "no notices from the fleet's database, changes are read at renewals: %s", error
                )
            away = True
        # Not all machines at one moment, when a database comes back.
        await asyncio.sleep(random.uniform(wait / 2, wait))
        wait = min(wait * 2, _LONGEST_WAIT)


async def _hear(connection: Connection, on_notify: Callable[[Notice], None]) -> None:
    async for notification in connection.notifies():
        notice = read_notice(notification.payload)
        if notice is not None:
            on_notify(notice)


def read_notice(payload: str) -> Notice | None:
    """None for anything else: every login of the database may send on the channel."""
    kind, _, machine = payload.partition(" ")
    if kind in KINDS and machine.isdecimal() and len(machine) < 10:
        return Notice(kind, int(machine))
    return None
