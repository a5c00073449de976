"""Changes of a session's keys while it is down: some records removed, all, or put back."""

from collections.abc import Callable, Sequence

from agent.engines.whaticket.contract import Contract
from agent.engines.whaticket.down_and_up import DownAndUp
from agent.engines.whaticket.keys.store import Plan, SessionStore
from agent.errors import EngineError

NOTHING = "nothing_to_remove"
"""The error's code where there is nothing that could be taken out: nothing was interrupted."""


async def plan_records(
    store: SessionStore, id: str, peers: Sequence[str], *, damaged: bool
) -> Plan:
    """These peers' records; where they have none, or `damaged` is set, also the session's own
    records that Baileys cannot use."""
    plan = await store.plan_peers(id, peers) if peers else Plan()
    if damaged or not plan:
        plan |= await store.plan_damaged(id)
    return plan


async def regenerate(
    round: DownAndUp,
    peers: Sequence[str],
    *,
    damaged: bool = False,
    going_down: Callable[[], None] = lambda: None,
    taken: Callable[[], None] = lambda: None,
) -> None:
    """Down, those records away, up again: Baileys makes new ones with the next message.

    EngineError `nothing_to_remove`, and no interruption, where it would be a mere reconnect.
    `going_down` is called before the session is touched, `taken` when the records are out and
    before the start.
    """
    plan = await plan_records(round.store, round.id, peers, damaged=damaged)
    if not plan:
        about = "no record of these peers is stored" if peers else "no peer is named"
        raise EngineError(
            f"cannot regenerate keys of {round.id}: {about}, and no stored record is damaged",
            code=NOTHING,
        )
    # A session that cannot be repaired now must not be interrupted.
    await round.store.must_be_possible(round.id, plan)

    async def work() -> None:
        plan = await plan_records(round.store, round.id, peers, damaged=damaged)
        if plan:
            await round.store.take_out(round.id, plan, "new keys with single peers")
            await round.must_stay_gone(plan)
        taken()
        round.report(f"back up and remove: {len(plan.files)} files, {len(plan.keys)} keys in Redis")

    await round.must_have_whole_creds(stored=True)
    going_down()
    await round.while_down(work)


async def start_over(round: DownAndUp, *, going_down: Callable[[], None] = lambda: None) -> None:
    """Down, everything away, then a start; what was taken out comes back if that was refused."""
    store, id = round.store, round.id
    await store.must_be_possible(id, await store.plan_all(id))
    going_down()
    await round.go_down()
    plan = await store.plan_all(id)
    removal = await store.take_out(id, plan, "the session starts over") if plan else None

    async def undo() -> None:
        if removal is not None:
            await store.put_back(id, removal)

    try:
        await round.must_stay_gone(plan)
    except EngineError:
        await round.again(round.begin)
        raise
    await round.start_or(undo)


async def put_back(
    round: DownAndUp, name: object, *, going_down: Callable[[], None] = lambda: None
) -> None:
    """A removal undone, by a person's wish; what lies there by now is put aside itself. A removal
    that is back already, or is no longer whole, is refused before the session is touched."""
    store, id = round.store, round.id
    removal = store.shelf.find_to_put_back(id, name)
    await store.must_be_possible(id, await store.in_the_way(id, removal), removal)

    async def work() -> None:
        if plan := await store.in_the_way(id, removal):
            await store.take_out(id, plan, f"made way for {removal.name}")
            await round.must_stay_gone(plan)
        await store.put_back(id, removal)

    going_down()
    await round.while_down(work)


def must_be_possible(what: str, contract: Contract, store: SessionStore) -> None:
    """EngineError where the keys of this backend's sessions cannot be changed."""
    if not store.usable:
        raise EngineError(
            f"cannot {what}: neither auth_folder nor redis_url of the backend is set",
            code="not_supported",
        )
    if contract.hang_up is None:
        raise EngineError(
            f"cannot {what}: this server has no disconnect that keeps the pairing, and keys"
            " may change only while a session is down",
            code="not_supported",
        )
