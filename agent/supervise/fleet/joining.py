"""A machine's sessions become sessions of its fleet when its agent starts: all of them, or none."""

import asyncio
import logging
from dataclasses import replace

from agent.clock import boot_id
from agent.config import Config
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.errors import ConfigError, Refused, TryLater
from agent.fleet.copies.arrive import epoch_here
from agent.fleet.fleet import Fleet
from agent.store.database import Store
from agent.supervise.fleet.epochs import Epochs, Tenancy
from agent.supervise.fleet.orders import new_session
from agent.supervise.fleet.owner import LEAVING
from agent.supervise.story import DELETING
from agent.vault.identity import found_sessions

log = logging.getLogger(__name__)

Known = dict[InstanceId, tuple[Instance, SessionRecord]]


async def register_sessions(fleet: Fleet, config: Config, store: Store) -> None:
    """Bring those into the fleet that are new in it. ConfigError: another machine has one, or
    [fleet] is not that of the others.

    A machine whose sessions are all known needs no database for its start.
    """
    epochs = Epochs(store)
    await epochs.load()
    if await store.get_fact(LEAVING) is not None:
        await epochs.forget(list(epochs.known))
        await store.forget_facts([LEAVING])
    new = await _unregistered(config, store, epochs)
    try:
        member = await fleet.keeper.join()
    except (TryLater, Refused) as error:
        if not new:
            log.warning("%s; this machine starts no session before it answers", error)
            return
        raise TryLater(
            f"{error}; the sessions here are not in the fleet yet", code=error.code
        ) from error
    if not new:
        return
    wanted = [new_session(*known, boot_id(), fleet.machine) for known in new.values()]
    taken = set(await fleet.coordinator.register(member, wanted))
    # One of a fleet that another machine has was moved there: supervision retires what is here.
    strangers = sorted(id for id in taken if not new[InstanceId(id)][0].leased)
    if strangers:
        raise ConfigError(
            f"cannot join the fleet: other machines of it have sessions named"
            f" {', '.join(strangers[:20])}; none of this machine's was registered. Export and"
            " delete these here, or create them with other names",
            code="owned_elsewhere",
        )
    kept = [it for it in wanted if it.id not in taken]
    if taken and kept:
        taken = set(await fleet.coordinator.register(member, kept))
    epoch_of = {it.id: it.epoch for it in await fleet.coordinator.owned(member)}
    await epochs.put(
        {
            InstanceId(it.id): Tenancy(_epoch(config, it.id, epoch_of[it.id]), member.epoch)
            for it in kept
            if it.id in epoch_of
        }
    )
    log.info("%s sessions of this machine are in the fleet now", len(kept))


async def _unregistered(config: Config, store: Store, epochs: Epochs) -> Known:
    rows = {instance.id: (instance, record) for instance, record in await store.instances()}
    folders = await asyncio.to_thread(found_sessions, config.session_root)
    # Only a folder says whether it is of a fleet.
    leased = {instance.id: instance.leased for instance, _ in folders}
    sessions = {instance.id: (instance, record) for instance, record in folders} | {
        id: (replace(instance, leased=leased.get(id, False)), record)
        for id, (instance, record) in rows.items()
    }
    deleting = await store.get_facts(DELETING)
    return {
        id: known
        for id, known in sessions.items()
        if id not in epochs.known and DELETING + id not in deleting
    }


def _epoch(config: Config, id: str, owned: int) -> int:
    """Of the folder here; an older one than the owned is stale, and is fetched again."""
    here = epoch_here(config.session_root, InstanceId(id))
    return owned if here is None or here < 0 else min(here, owned)
