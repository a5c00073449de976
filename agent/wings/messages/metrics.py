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
_FIELDS = {
    WAITING: "waiting",
    BYTES: "bytes",
    LOST: "lost",
    MEDIA_FILES: "media_files",
    MEDIA_BYTES: "media_bytes",
}


def message_samples(states: Mapping[InstanceId, KeptState]) -> Iterator[tuple[Family, str]]:
    for family, field in _FIELDS.items():
        lines = (
            sample(family.name, getattr(state, field), session=id) for id, state in states.items()
        )
        yield family, "".join(lines)
