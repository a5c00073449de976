"""What a repair asks of a session's worker, with its deadline."""

from agent.errors import LinkError
from agent.supervise.facts import Facts

CALL_TIMEOUT = 15.0
REMOTE_TIMEOUT = 120.0
"""A server takes its time over what it does to a session."""


async def call_worker(
    facts: Facts,
    do: str,
    arguments: dict[str, object] | None = None,
    *,
    timeout: float = CALL_TIMEOUT,
) -> None:
    if facts.link is None:
        raise LinkError(f"cannot {do} {facts.id}: its worker does not answer", code="gone")
    await facts.link.call(do, arguments or {}, timeout=timeout)
