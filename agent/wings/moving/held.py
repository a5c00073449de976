"""An instance that `change-engine` holds still: what must be true before, what nobody may change
meanwhile, and that it goes on afterwards."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.cli.client import Client
from agent.cli.doctor.agent_settings import places_of
from agent.cli.doctor.engines import what_is_missing
from agent.errors import AgentUnreachable, Refused, TryLater

_STOPS, _COMES_BACK, _EVERY = 120.0, 60.0, 0.2


def refuse_missing(client: Client, id: str, engine: str) -> None:
    """Before anything is stopped. As far as this user may look; nothing of another machine."""
    places = {} if client.url else places_of(client)
    if not (cache := places.get("cache")) or not _may_look(cache):
        return
    if missing := what_is_missing(engine, Path(cache), Path(places.get("state", ""))):
        raise Refused(
            f"cannot change the engine of {id}: the engine {engine} cannot run here: {missing}",
            code="engine_missing",
        )


def _may_look(folder: str) -> bool:
    """One that is not there holds nothing."""
    try:
        next(Path(folder).iterdir(), None)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return True


@contextmanager
def stopped(client: Client, instance: Mapping[str, Any]) -> Iterator[None]:
    """Disabled, so that no boot starts it in between; afterwards as it was, whatever fails."""
    path = f"/api/instance/{instance['id']}"
    with _told_to_end():
        try:
            client.post(f"{path}/disable")
            deadline = time.monotonic() + _STOPS
            while client.get(f"{path}/details")["unit"]["main_pid"]:
                if time.monotonic() > deadline:
                    raise TryLater(f"cannot stop {instance['id']} within {_STOPS:.0f} s")
                time.sleep(_EVERY)
            yield
        except BaseException as error:
            _enable_again(client, instance, error)
            raise
        _enable_again(client, instance, None)


@contextmanager
def _told_to_end() -> Iterator[None]:
    """The end of a terminal and of a service undo it, as Ctrl+C does."""

    def end(number: int, _frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    for each in before:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each, usual in before.items():
            signal.signal(each, usual)


def _enable_again(client: Client, instance: Mapping[str, Any], error: BaseException | None) -> None:
    """An agent that is starting again gets time for it."""
    if not instance["enabled"]:
        return
    deadline = time.monotonic() + _COMES_BACK
    while True:
        try:
            client.post(f"/api/instance/{instance['id']}/enable")
            return
        except (AgentUnreachable, TryLater) as away:
            if time.monotonic() > deadline:
                words = f"{error or away}; {instance['id']} is still disabled: when the agent"
                raise AgentUnreachable(
                    f"{words} answers, wa-agent enable {instance['id']}"
                ) from away
        time.sleep(_EVERY)


def refuse_changed(client: Client, instance: Mapping[str, Any]) -> None:
    """What somebody else did meanwhile counts: the copy is not of it."""
    now = client.get(f"/api/instance/{instance['id']}/details")
    if now["enabled"] or now["engine"] != instance["engine"]:
        raise Refused(
            f"cannot change the engine of {instance['id']}: another command changed it meanwhile",
            code="changed_meanwhile",
        )
