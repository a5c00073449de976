"""Two addresses of whaticket-like servers, for scripts that were written for those. They are the
operator's stop and start, with every engine."""

import asyncio
import time
from collections.abc import Callable

from agent.api.http.call import Call, Json
from agent.api.http.fields import INTEGER, Field
from agent.api.present import show_instance
from agent.core.model import ConnectionStatus, UnitState
from agent.core.view import InstanceView
from agent.supervise.requests.repairs import in_time

LONGEST_WAIT = 300
WAIT_UP = (
    Field("wait", INTEGER, "seconds to wait for CONNECTED or QR_REQUIRED", most=LONGEST_WAIT),
)
WAIT_DOWN = (Field("wait", INTEGER, "seconds to wait until it is closed", most=LONGEST_WAIT),)
_LOOK_EVERY = 0.2


async def disconnect(call: Call) -> Json:
    """The session is closed and keeps its pairing; it stays closed until a start."""
    await call.supervisor.orders.stop(call.id)
    return await _answer(call, _is_down)


async def start_session(call: Call) -> Json:
    await call.supervisor.orders.start(call.id)
    return await _answer(call, _is_up)


async def _answer(call: Call, arrived: Callable[[InstanceView], bool]) -> Json:
    """After the time the answer has the present status; that is no error."""
    deadline = time.monotonic() + call.query.get("wait", 0)
    if "wait" in call.query:
        # After this check a stop or start that was under way is over and seen.
        await in_time(call.supervisor.checking.check_now([call.id]), deadline)
    while True:
        view = call.supervisor.view(call.id)
        if arrived(view) or time.monotonic() >= deadline:
            return {"status": view.status.value, **show_instance(view)}
        await asyncio.sleep(_LOOK_EVERY)


def _is_up(view: InstanceView) -> bool:
    return view.status in (ConnectionStatus.CONNECTED, ConnectionStatus.QR_REQUIRED)


def _is_down(view: InstanceView) -> bool:
    at_rest = view.unit.state in (UnitState.INACTIVE, UnitState.FAILED)
    return at_rest and view.status is not ConnectionStatus.CONNECTED
