"""A session that is over makes way: its folder goes to the trash, an empty one takes its place.

Its worker does not run, and what must outlive a kill in between is written down by the caller.
"""

from pathlib import Path

from agent.failpoint import failpoint
from agent.supervise.facts import Facts
from agent.vault.identity import create
from agent.vault.trash import list_trash, retire


def set_aside(root: Path, facts: Facts, why: str) -> str:
    """Retire an instance's folder and lay out an empty one; its name in the trash.

    The same again does no harm: an earlier life of the agent may have come any part of the way.
    """
    if (root / facts.id).exists():
        name = retire(root, facts.id, why).name
    else:
        name = next((one.name for one in list_trash(root) if one.id == facts.id), "nothing")
    failpoint("set_aside")
    create(root, facts.instance)
    return name
