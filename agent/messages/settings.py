"""[messages]: what is kept of what arrives and of what is to be sent, and for how long."""

from dataclasses import dataclass

from agent.config.config import Table
from agent.core.setting import setting


# fmt: off
@dataclass(frozen=True, slots=True)
class MessagesSettings:
    keep: bool = setting(
        True, "false = nothing that arrives in a session is kept, and no program can read it")
    hours: float = setting(
        72.0, "hours after which a message goes, read or not", low=0.1, high=8760)
    megabytes: int = setting(
        256, "of messages that one session keeps; the oldest go first", low=1, high=65536)
    most: int = setting(
        100_000, "messages that one session keeps; the oldest go first", low=100, high=1_000_000)
    media_megabytes: int = setting(
        256, "of files that one session keeps; the oldest go first", low=1, high=1_048_576)
    media_most_megabytes: int = setting(
        64, "of one file; a larger one is not loaded", low=1, high=2048)
    expires_hours: float = setting(
        24.0, "hours after which a message that could not be sent is given up, where its sender"
        " named no time", low=0.01, high=720)
    outbox_most: int = setting(
        10_000, "messages of one session that may wait to be sent; more are refused (429)",
        low=1, high=1_000_000)
    outbox_megabytes: int = setting(
        1024, "of all messages that wait to be sent, with their files; more are refused (507)",
        low=1, high=1_048_576)


@dataclass(frozen=True, slots=True)
class PaceSettings:
    per_minute: float = setting(
        0.0, "messages that a session sends a minute at most; 0 = as many as come",
        low=0, high=6000)
# fmt: on

HEAD = """\
# Messages that arrive in a session are kept in its own folder until programs have read them. A
# session takes a change on when its worker starts next. Messages to send wait in outbox.db.\
"""

OF_WORKERS = ("keep", "hours", "megabytes", "most", "media_megabytes", "media_most_megabytes")

PACE_HEAD = """\
# How fast each session sends, so that WhatsApp does not take it for spam. `wa-agent why` says so of
# messages that wait for this.\
"""

MESSAGES = Table(name="messages", plain=MessagesSettings(), head=HEAD, worker=OF_WORKERS)
PACE = Table(name="messages.pace", plain=PaceSettings(), head=PACE_HEAD)
