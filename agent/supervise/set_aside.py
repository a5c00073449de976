"""Retires the folder of a session that is over and lays out an empty one. Its worker does not run;
the caller writes down what must outlive a kill in between."""

from pathlib import Path

from agent.failpoint import failpoint
from agent.supervise.facts import Facts
from agent.vault.carried import carried
from agent.vault.identity import create
from agent.vault.trash import list_trash, retire


def set_aside(root: Path, facts: Facts, why: str) -> str:
    """Its name in the trash. Repeating it does no harm: an earlier agent may have done a part."""
    with carried(root, facts.id):
        if (root / facts.id).exists():
            name = retire(root, facts.id, why).name
        else:
            name = next(
                (retired.name for retired in list_trash(root) if retired.id == facts.id), "nothing"
            )
        failpoint("set_aside")
        create(root, facts.instance)
    return name
