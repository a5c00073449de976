"""What is done to a session's keys while it is down: some peers' taken out, all, or put back."""

from collections.abc import Sequence

from agent.engines.whaticket.down_and_up import Round
from agent.errors import EngineError


async def regenerate(round: Round, peers: Sequence[str]) -> None:
    """Down, these peers' keys away, up again: Baileys makes new ones with the next message."""

    async def work() -> None:
        plan = await round.store.plan_peers(round.id, peers)
        if plan:
            await round.store.take_out(round.id, plan, "new keys with single peers")
            await round.must_stay_gone(plan)
        round.tell(f"back up and remove: {len(plan.files)} files, {len(plan.keys)} keys in Redis")

    await round.while_down(work)


async def clear_and_start(round: Round) -> None:
    """Everything away, then a start; what was taken out comes back if the start was refused."""
    store, id = round.store, round.id
    plan = await store.plan_all(id)
    removal = await store.take_out(id, plan, "the session is begun anew") if plan else None

    async def undo() -> None:
        if removal is not None:
            await store.put_back(id, removal)

    try:
        await round.must_stay_gone(plan)
    except EngineError:
        await round.begin()
        raise
    await round.start_or(undo)


async def put_back(round: Round, name: str) -> None:
    """A removal undone, by a person's wish; what lies there by now is put aside itself."""
    store, id = round.store, round.id
    removal = store.shelf.find(id, name)
    if plan := await store.in_the_way(id, removal):
        await store.take_out(id, plan, f"made way for {name}")
        await round.must_stay_gone(plan)
    await store.put_back(id, removal)
