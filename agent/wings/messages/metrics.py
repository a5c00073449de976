"""What sessions keep of what arrived, by session."""

from collections.abc import Iterator, Mapping

from agent.core.model import InstanceId
from agent.metrics.text import COUNTER, GAUGE, Family, sample
from agent.supervise.messages.page import KeptState

WAITING = Family(
    "wa_messages_waiting", GAUGE, "Kept records that not all who get them have, by session."
)
BYTES = Family("wa_messages_bytes", GAUGE, "Size of the kept records, by session.")
LOST = Family(
    "wa_messages_lost_total",
    COUNTER,
    "Records that were dropped before all who get them had them, by session.",
)
MEDIA_FILES = Family(
    "wa_messages_media_files", GAUGE, "Files of messages that are kept, by session."
)
MEDIA_BYTES = Family(
    "wa_messages_media_bytes", GAUGE, "Size of the files of messages that are kept, by session."
)
UNSURE = Family(
    "wa_messages_unsure_total",
    COUNTER,
    "How often a session came from a lost machine, so that records may be missing, by session.",
)
NOT_COPIED = Family(
    "wa_messages_not_copied",
    GAUGE,
    "Records that would be lost with this machine, as too many wait to be stored, by session.",
)
_FIELDS = {
    WAITING: "waiting",
    BYTES: "bytes",
    LOST: "lost",
    UNSURE: "unsure",
    MEDIA_FILES: "media_files",
    MEDIA_BYTES: "media_bytes",
}


def message_samples(states: Mapping[InstanceId, KeptState]) -> Iterator[tuple[Family, str]]:
    for family, field in _FIELDS.items():
        lines = (
            sample(family.name, getattr(state, field), session=id) for id, state in states.items()
        )
        yield family, "".join(lines)


def copy_samples(left_out: Mapping[InstanceId, int]) -> Iterator[tuple[Family, str]]:
    """Of a machine of a fleet."""
    lines = (sample(NOT_COPIED.name, count, session=id) for id, count in left_out.items())
    yield NOT_COPIED, "".join(lines)
