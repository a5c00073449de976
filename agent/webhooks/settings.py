"""[[webhook]]: the addresses that get the agent's events, and the checks of these tables."""

import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from agent.config.config import Config, Table, read_secret, url_fault
from agent.core.setting import HIDDEN, name_fault, path_fault, setting

_PATTERN = re.compile(r"[a-z0-9_*?-]{1,64}")
MESSAGE_KINDS = ("message", "call")
"""Words with which a kind of record begins, and no event of the journal does."""
BASE64 = "whsec_"
"""Prefix of a key in base64, in Standard Webhooks."""
LEAST_KEY = 16
"""Bytes of a key; a shorter one can be guessed from one signature."""


def _url_fault(text: str) -> str:
    """Return the fault of a URL. A query is allowed: it is the key of many services."""
    return url_fault(text.partition("?")[0])


def _patterns_fault(values: tuple[str, ...]) -> str:
    if wrong := [value for value in values if not _PATTERN.fullmatch(value)]:
        return f"{wrong[0]!r:.80} is no pattern of a-z, 0-9, -, _, * and ?"
    return "" if values else 'an empty list sends nothing; "*" = all'


def matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class WebhookDeclaration:
    name: str = setting("", "its name here: [a-z0-9][a-z0-9_-]{0,47}", check=name_fault)
    url: str = setting("", "http(s):// address to post to", credentials=True, check=_url_fault)
    secret_file: str = setting("", 'file with the secret that signs; "" = none', check=path_fault)
    kinds: tuple[str, ...] = setting(
        ("*",),
        'kinds of events to send, such as "status"; messages that sessions get only where a kind'
        ' begins with "message" or "call", such as "message*"',
        check=_patterns_fault,
    )
    instances: tuple[str, ...] = setting(
        ("*",), 'ids of instances; "*" = all, and the agent\'s own events', check=_patterns_fault
    )
    oldest: bool = setting(False, "true = begin with the oldest message that is kept")
    private: bool = setting(False, "true = this machine and private networks are allowed")
    ca_file: str = setting("", 'trusted certificates; "" = those of this machine', check=path_fault)
    timeout: float = setting(10.0, "seconds that one delivery may take", low=0.1, high=120)
    longest_age: float = setting(72.0, "hours until an unsent event goes", low=0.01, high=2160)
    tries: int = setting(3, "tries of an event that the target refuses", low=1, high=20)

    @property
    def message_kinds(self) -> tuple[str, ...]:
        """Return the patterns that name records of messages; "*" does not."""
        return tuple(kind for kind in self.kinds if kind.startswith(MESSAGE_KINDS))

    def chooses(self, id: str) -> bool:
        return matches(id, self.instances)


def webhooks_of(config: Config) -> tuple[WebhookDeclaration, ...]:
    return config.rows.get("webhook", ())


def secret_of(declared: WebhookDeclaration) -> bytes:
    """Return the key that signs; b"" without a secret_file. ConfigError: the file's fault."""
    if not declared.secret_file:
        return b""
    whose = f"secret_file of webhook {declared.name}"
    return _key(read_secret(declared.secret_file, whose, "webhook.secret_file", _key_fault))


def _key(text: str) -> bytes:
    if text.startswith(BASE64):
        return b64decode(text.removeprefix(BASE64), validate=True)
    return text.encode()


def _key_fault(text: str) -> str:
    try:
        return "" if len(_key(text)) >= LEAST_KEY else f"it is shorter than {LEAST_KEY} bytes"
    except ValueError:
        return f"what follows {BASE64} is no base64"


def shown_target(url: str) -> str:
    """Return the URL's host without its path, which is the key of many services."""
    parts = urlsplit(url)
    more = HIDDEN if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{more}"


HEAD = """\
# Webhooks: addresses that the agent posts its events to, each event as one JSON object.
# Each begins with [[webhook]]. A reload applies changes.
# [[webhook]]
"""

WEBHOOKS = Table(
    name="webhook",
    plain=WebhookDeclaration(),
    needed=("name", "url"),
    hide=lambda row: replace(row, url=shown_target(row.url)),
    head=HEAD,
    example=WebhookDeclaration(
        "ops", "https://ops.example.com/wa-agent", secret_file="/etc/wa-agent/ops.secret"
    ),
)
