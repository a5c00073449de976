"""A repair as it stands in the session's record, so that it outlives the agent."""

import json
import logging
from dataclasses import replace

from agent.core.model import SessionRecord
from agent.core.recovery.repair import Repair, read_repair, resume_repair, stored

log = logging.getLogger(__name__)


def with_repair(record: SessionRecord, repair: Repair | None) -> SessionRecord:
    return replace(record, repair="" if repair is None else json.dumps(stored(repair)))


def repair_of(record: SessionRecord, now_wall: float) -> Repair | None:
    """The repair that an earlier life of the agent was about, ready to go on."""
    if not record.repair:
        return None
    try:
        return resume_repair(read_repair(json.loads(record.repair)), now_wall)
    except (ValueError, TypeError, AttributeError) as error:
        log.warning("cannot read a recorded repair, which is dropped: %s", error)
        return None
