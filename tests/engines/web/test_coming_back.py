"""The reason of a return is what ended the page, whatever else came at that moment."""

from pathlib import Path
from typing import Any, cast

import pytest

from agent.core.model import Claim, ConnectionStatus
from agent.engines.tasks import Tasks
from agent.engines.web.record import Record
from agent.engines.web.session import Session
from agent.engines.web.settings import read_settings
from agent.engines.web.starts import Starts
from agent.engines.web.view import SessionView

CONNECTED = {
    **dict.fromkeys(("loaded", "injected", "ready", "full", "auth"), True),
    **{"mode": "MAIN", "info": "NORMAL", "socket": "CONNECTED"},
}


class Reloaded:
    """A session whose page takes a reload."""

    alive = False

    async def reload(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["the old page's", "none"])
async def test_a_question_that_was_open_when_the_page_crashed_changes_no_reason(
    tmp_path: Path, answer: str
) -> None:
    view, told, crashes = SessionView(pairing_safe=True), list[Claim](), list[Any]()
    tasks = Tasks(crashes.append)
    session = cast(Session, Reloaded())
    record, settings = Record(tmp_path), read_settings({})
    starts = Starts(
        tmp_path, settings, session, view, record, lambda: told.append(view.claim), tasks
    )
    view.look(CONNECTED, 1.0)
    assert view.claim.status is ConnectionStatus.CONNECTED
    starts.come_back(starts.revive, "page_crashed")
    if answer == "none":
        view.silent = True
    else:
        view.look(CONNECTED, 1.0)
    await tasks.wait()
    assert [(claim.status, claim.reason) for claim in told] == [
        (ConnectionStatus.RECONNECTING, "page_crashed")
    ]
    assert crashes == []
