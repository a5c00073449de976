"""One worker for all sessions of a backend: from its start to its end, its calls, its faults."""

import json
import signal
from typing import Any

import pytest

from agent.errors import EngineError


async def test_the_roster_is_held_and_claimed_without_an_agent(backend: Any) -> None:
    names = backend.serve(50)
    backend.start()
    await backend.until(lambda: any(text.startswith("50 of 50") for text in backend.statuses()))
    link = await backend.linked()
    assert (link.hello.id, link.hello.run, link.hello.engine) == ("evo", "run1", "loop")
    await backend.until(lambda: backend.states() == dict.fromkeys(names, "CONNECTED"))
    await backend.until(lambda: backend.servers)
    assert (backend.servers[0].up, backend.servers[0].version) == (True, "2.3.7")
    await backend.until(lambda: backend.statuses()[-1] == "50 of 50 connected; server up (2.3.7)")
    assert backend.stats.refused == {}


async def test_hold_and_release_change_which_sessions_are_watched(backend: Any) -> None:
    backend.start()
    link = await backend.linked()
    backend.server.states["there"] = "QR_REQUIRED"
    backend.known = {"here"}
    hold = {"id": "here", "settings": {"backend": "evo", "remote": "there", "name": "Shop"}}
    await link.call("hold", hold)
    await link.call("hold", hold)  # again: nothing changes
    await backend.until(lambda: backend.states() == {"here": "QR_REQUIRED"})
    assert (await link.call("qr", id="here"))["qr"]["text"] == "2@qr"
    moved = {"id": "here", "settings": {"backend": "evo", "remote": "elsewhere"}}
    await link.call("hold", moved)
    with pytest.raises(EngineError) as caught:
        await link.call("probe", id="here")
    assert caught.value.code == "remote_missing"
    await link.call("release", {"id": "here"})
    await link.call("release", {"id": "here"})
    with pytest.raises(EngineError, match="here") as caught:
        await link.call("probe", id="here")
    assert caught.value.code == "not_found"


async def test_calls_reach_the_session_they_are_about(backend: Any) -> None:
    backend.serve(3, "DISCONNECTED")
    backend.start()
    link = await backend.linked()
    answer = await link.call("probe", {"deep": True}, id="s0001")
    assert answer["claim"]["status"] == "DISCONNECTED" and answer["detail"] == {"exists": True}
    for do in ("connect", "disconnect", "restart", "renew", "logout", "free_memory", "save"):
        assert await link.call(do, id="s0001") == {}
    sent = await link.call("send", {"message": {"to": "1", "text": "x"}}, id="s0002")
    assert sent["done"] == "send"
    told = await link.call("command", {"name": "pairing_code", "arguments": {}}, id="s0000")
    assert told["done"] == "pairing_code"
    assert ("restart", "s0001") in backend.server.asked
    with pytest.raises(EngineError) as caught:
        await link.call("dance", id="s0001")
    assert caught.value.code == "invalid_request"


async def test_sigterm_releases_all_closes_and_leaves_the_sessions_alone(backend: Any) -> None:
    backend.serve(20)
    backend.start()
    await backend.linked()
    await backend.until(lambda: len(backend.states()) == 20)
    backend.process.terminate()
    assert await backend.ended() == 0
    kept = backend.folder / "kept"
    assert json.loads((kept / "closed").read_text()) == {"held": 0}
    assert len(list(kept.glob("saved-*"))) == 20
    assert not {"logout", "disconnect"} & {do for do, _ in backend.server.asked}
    assert any(notice.startswith("STOPPING=1") for notice in backend.notices)
    assert "[evo] closed in order" in backend.errors()
    assert not (backend.runtime / "link.sock").exists()


async def test_kill_9_and_a_restart_hold_all_of_them_again(backend: Any) -> None:
    names = backend.serve(20)
    backend.start()
    await backend.linked()
    backend.process.kill()
    assert await backend.ended() == -signal.SIGKILL
    backend.start()
    link = await backend.linked()
    await backend.until(lambda: backend.states() == dict.fromkeys(names, "CONNECTED"))
    assert link.hello.run == "run2"


@pytest.mark.parametrize(
    ("text", "why", "status"),
    [
        pytest.param('{"version": 2, "name": "evo", "engine": "loop"}', "version", 66, id="newer"),
        pytest.param(
            '{"version":1,"name":"evo","engine":"loop","settings":{"port":"hunter2"}}',
            "port",
            78,
            id="bad setting",
        ),
    ],
)
async def test_a_bad_backend_ends_the_worker_for_good_and_is_named(
    backend: Any, text: str, why: str, status: int
) -> None:
    """66: the file cannot be used; 78: it is read, and no worker can run as it says."""
    (backend.folder / "backend.json").write_text(text)
    backend.start(identity=False)
    assert await backend.ended() == status
    errors = backend.errors()
    assert why in errors and "Traceback" not in errors and "hunter2" not in errors


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"version": 1, "sessions": []}',
    ],
)
async def test_a_roster_that_cannot_be_read_leaves_it_to_the_agent(backend: Any, text: str) -> None:
    (backend.folder / "roster.json").write_text(text)
    backend.start()
    link = await backend.linked()
    backend.server.states["a"] = "CONNECTED"
    backend.known = {"a"}
    await link.call("hold", {"id": "a", "settings": {}})
    await backend.until(lambda: backend.states() == {"a": "CONNECTED"})
    backend.process.terminate()
    assert await backend.ended() == 0
    assert "cannot use" in backend.errors()


async def test_a_bad_session_in_the_roster_costs_the_others_nothing(backend: Any) -> None:
    backend.server.states = dict.fromkeys(["good", "bad"], "CONNECTED")
    backend.roster({"bad": {"remote": "impossible"}, "Not An Id": {}, "good": {}})
    backend.start()
    await backend.linked()
    await backend.until(lambda: backend.states() == {"good": "CONNECTED"})
    backend.process.terminate()
    assert await backend.ended() == 0
    errors = backend.errors()
    assert "cannot hold bad" in errors and "Not An Id" in errors


# faults


async def test_a_session_that_breaks_ends_its_call_and_nothing_else(backend: Any) -> None:
    names = backend.serve(3)
    backend.server.faults["probe:s0001"] = {"engine": "break"}
    backend.start()
    link = await backend.linked()
    with pytest.raises(EngineError) as caught:
        await link.call("probe", id="s0001")
    assert caught.value.code == "internal" and "secret" not in str(caught.value)
    assert (await link.call("probe", id="s0002"))["claim"]["status"] == "CONNECTED"
    await backend.until(lambda: backend.states() == dict.fromkeys(names, "CONNECTED"))
    backend.process.terminate()
    assert await backend.ended() == 0
    assert "cannot probe: internal error" in backend.errors()


async def test_a_session_that_hangs_ends_its_call_at_its_deadline(backend: Any) -> None:
    backend.serve(2)
    backend.server.faults["probe:s0001"] = {"engine": "hang"}
    backend.start()
    link = await backend.linked()
    with pytest.raises(EngineError) as caught:
        await link.call("probe", {"deadline": 0.5}, id="s0001")
    assert caught.value.code == "timeout"
    assert (await link.call("probe", id="s0000"))["claim"]["status"] == "CONNECTED"


async def test_a_backend_that_lost_its_way_ends_the_worker(backend: Any) -> None:
    backend.start()
    await backend.linked()
    backend.server.faults["list"] = {"engine": "crash", "states": {}}
    assert await backend.ended() == 1
    assert "the engine crashed: RuntimeError: lost my way" in backend.errors()
