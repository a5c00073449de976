"""No agent starts on a copy of a state folder that is in use: each session would log in twice."""

from pathlib import Path

from agent.daemon.state_folder import name_some, read_mark
from agent.errors import TryLater
from agent.host.machine.state_folders import UsedState, used_states
from agent.vault.identity import scan


def refuse_copied_state(state: Path, session_root: Path) -> None:
    """TryLater when an agent, or a worker, of this machine uses another folder with the mark of
    this one: one is a copy of the other. Writes nothing."""
    here = read_mark(state)
    if here is None:
        return
    for used in used_states():
        mark = None if used.is_same(state) else read_mark(used.seen_at)
        if mark is not None and mark.id == here.id:
            raise TryLater(_sentence(state, used, session_root), code="state_copied")


def _sentence(state: Path, used: UsedState, session_root: Path) -> str:
    if used.agent:
        who = f"another agent runs (process {used.agent})"
        first = "stop that agent first"
    else:
        who = "no agent runs, but workers do"
        first = f"start the agent on {used.folder} again and stop it in order first"
    here = scan(session_root) if session_root.is_dir() else []
    sessions = used.workers or [folder.id for folder in here]
    whose = f" with {name_some(sessions)}" if sessions else ""
    return (
        f"cannot start on {state}: it and {used.folder} are copies of one state folder, and on"
        f" {used.folder} {who}{whose}: each session would log in a second time. To go on here,"
        f" {first}; for an agent of its own, begin with an empty state folder, and take single"
        " sessions over with `wa-agent export` and `import`"
    )
