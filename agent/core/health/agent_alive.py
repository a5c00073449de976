"""Whether the agent itself is alive: its passes are completed in time."""

from agent.core.view import AgentStatus


def is_alive(status: AgentStatus, now_wall: float) -> bool:
    """A pass was completed not long ago; before the first one there is grace."""
    if status.last_pass_age is None:
        return now_wall - status.started_wall <= status.alive_limit
    return status.last_pass_age <= status.alive_limit
