"""Events wake, state decides: what the webhook tells of an end is believed once the server's own
answers say so. It repeats an event for half an hour, and the session may be open again by then."""

import asyncio

from agent.core.reasons import reason_of
from agent.engines.evolution.claims import Live
from agent.engines.evolution.observer import Observer
from agent.engines.evolution.rows import FINAL
from agent.engines.evolution.webhook import hooks
from agent.engines.reason_codes import evolution_reason

_ROW_LOOKS = 5
"""Looks for the end's number: the server writes its row a moment after the state."""


async def is_so(event: hooks.HookEvent, observer: Observer) -> bool:
    """Whether the event counts, by a look at the session now; EngineError where the server does not
    answer. The look itself is in the view afterwards."""
    view, api = observer.view, observer.server.api
    ends, code = _end_of(event)
    known = view.live not in (Live.OPEN, Live.MISSING)
    if not ends and (not _tells(event) or (known and view.unpaired)):
        return True  # there is nothing that it could end
    if not ends and hooks.read_open(event.content):
        return True  # its proof is asked for
    await observer.state()
    if view.live in (Live.OPEN, Live.MISSING, Live.UNLOADED):
        return False
    if not ends and event.kind != "QRCODE_UPDATED":
        return False  # the look says as much; a question would go into its login, and break it
    if not ends:
        await observer.missing_pairing(now=True)
        return view.unpaired
    if event.kind == "CONNECTION_UPDATE" and code is not None and not _ends_pairing(code):
        return True  # the other events are told with the keys deleted
    if api.may_be_old:
        # It has no row, and says `close` between two of its own tries, too.
        return view.logins.stays_closed or await api.has_account(observer.remote) is False
    for _ in range(_ROW_LOOKS):
        await observer.row()
        if view.end_known:
            break
        await asyncio.sleep(observer.server.pace.look_every)
        await observer.state()
    return False  # the row says it, or it is not so


def _end_of(event: hooks.HookEvent) -> tuple[bool, int | None]:
    """Whether it tells that the session ended, and WhatsApp's number of that; None = a logout."""
    if event.kind == "LOGOUT_INSTANCE":
        return True, None
    if event.kind == "STATUS_INSTANCE":
        code = hooks.read_end(event.content)
        return code is not None, code
    change = hooks.read_state_change(event.content)
    closes = event.kind == "CONNECTION_UPDATE" and change is not None and change.live is Live.CLOSE
    return closes, (change.code or 0) if closes and change is not None else None


def _tells(event: hooks.HookEvent) -> bool:
    if event.kind == "QRCODE_UPDATED":
        return hooks.codes_used_up(event.content) or hooks.read_code(event.content) is not None
    return hooks.read_state_change(event.content) is not None


def _ends_pairing(code: int) -> bool:
    reason = reason_of(evolution_reason(code))
    return code in FINAL or reason.unpairs or reason.hopeless
