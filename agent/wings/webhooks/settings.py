"""[[webhook]]: the addresses that get the agent's events, and the checks of these tables."""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from agent.config.backends import shown_url
from agent.config.config import Config
from agent.config.problem import Problem
from agent.config.secret_file import read_secret
from agent.config.wing_tables import ArrayTable
from agent.core.model import parse_instance_id
from agent.core.network.addresses import refuse_address
from agent.core.setting import HIDDEN, setting
from agent.errors import InvalidRequest

_PATTERN = re.compile(r"[a-z0-9_*?-]{1,64}")
MESSAGE_KINDS = ("message", "call")
"""A kind of record begins with one of these words, and no event of the journal does."""
LEAST_SECRET = 16
"""Characters; a shorter secret can be guessed from one signature."""


@dataclass(frozen=True, slots=True)
class WebhookDeclaration:
    name: str = setting("", "name of the webhook here: [a-z0-9][a-z0-9_-]{0,47}")
    url: str = setting(
        "", "http:// or https:// address that gets the events, without a password",
        credentials=True,
    )  # fmt: skip
    secret_file: str = setting("", 'file with the secret that signs the events; "" = no signature')
    kinds: tuple[str, ...] = setting(
        ("*",),
        'kinds of events to send, such as "status"; messages that sessions get only where a kind'
        ' begins with "message" or "call", such as "message*"',
    )
    instances: tuple[str, ...] = setting(
        ("*",),
        'ids of instances whose events to send, such as "shop-*"; "*" = all, and the'
        " agent's own events",
    )
    oldest: bool = setting(
        False, "true = a new webhook begins with the oldest message that is kept, not with the next"
    )
    private: bool = setting(
        False, "true = the address may be on this machine or in a private network"
    )
    ca_file: str = setting("", 'file with the trusted certificates; "" = those of this machine')
    timeout: float = setting(10.0, "seconds that one delivery may take", low=0.1, high=120)
    longest_age: float = setting(
        72.0, "hours after which the agent drops an unsent event", low=0.01, high=2160
    )
    tries: int = setting(
        3,
        "tries of an event that the target refuses, before the agent sets it aside",
        low=1,
        high=20,
    )


def webhooks_of(config: Config) -> tuple[WebhookDeclaration, ...]:
    return config.of_wings.get("webhook", ())


def message_kinds(declaration: WebhookDeclaration) -> tuple[str, ...]:
    """The patterns that name records of messages; "*" is none: who wants them says so."""
    return tuple(kind for kind in declaration.kinds if kind.startswith(MESSAGE_KINDS))


def consumer_of(declaration: WebhookDeclaration) -> str:
    """Its name among those who get messages."""
    return f"webhook {declaration.name}"


def gets_messages_of(declaration: WebhookDeclaration, id: str) -> bool:
    return any(fnmatchcase(id, pattern) for pattern in declaration.instances)


def secret_of(declaration: WebhookDeclaration) -> bytes:
    """b"" without a secret_file. ConfigError names the fault of the file."""
    if not declaration.secret_file:
        return b""
    whose = f"secret_file of webhook {declaration.name}"
    return read_secret(declaration.secret_file, whose, "webhook.secret_file", _too_short).encode()


def _too_short(text: str) -> str:
    if len(text) < LEAST_SECRET:
        return f"it is shorter than {LEAST_SECRET} characters"
    return ""


def shown_target(url: str) -> str:
    """The URL's host without its path: the path is the key of many services."""
    scheme, mark, rest = shown_url(url).partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}{mark}{authority}/{HIDDEN if path else ''}"


def hide_target(declaration: WebhookDeclaration) -> WebhookDeclaration:
    return replace(declaration, url=shown_target(declaration.url))


Found = Iterator[tuple[str, str]]
"""A key and its fault."""


def find_webhook_problem(webhooks: Sequence[WebhookDeclaration]) -> Problem | None:
    """The first fault, or None."""
    names: set[str] = set()
    for number, webhook in enumerate(webhooks):
        for check in _CHECKS:
            for key, cause in check(webhook):
                return Problem((f"webhook[{number}].{key}", f"webhook[{number}]"), cause)
        if webhook.name in names:
            return Problem((f"webhook[{number}].name",), f"{webhook.name} is declared twice")
        names.add(webhook.name)
    return None


def _name(webhook: WebhookDeclaration) -> Found:
    for key in ("name", "url"):
        if not getattr(webhook, key):
            yield key, "every [[webhook]] needs it"
    try:
        parse_instance_id(webhook.name)
    except InvalidRequest:
        words = "1 to 48 of a-z, 0-9, - and _, beginning with a letter or digit"
        yield "name", f"it must be {words}, not {webhook.name!r:.80}"


def _url(webhook: WebhookDeclaration) -> Found:
    """Never with the URL itself: it may hold a secret."""
    wrong = "it must be http://HOST[:PORT]/PATH or https://…"
    try:
        parts = urlsplit(webhook.url)
        good = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        yield "url", wrong
        return
    if not good or not parts.hostname or not webhook.url.isprintable() or " " in webhook.url:
        yield "url", wrong
    elif parts.username is not None or parts.password is not None:
        yield "url", f"{wrong} without user and password"
    elif parts.fragment:
        yield "url", f"{wrong} without #"
    elif why := _address_fault(parts.hostname, webhook.private):
        yield "url", f"the agent sends nothing to that address: {why}"
    elif webhook.ca_file and parts.scheme != "https":
        yield "ca_file", "an http address shows no certificate"


def _address_fault(host: str, private: bool) -> str:
    """Judges a literal address; the sender judges a name when it resolves it."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    else:
        return refuse_address(host, private=private)
    try:
        socket.inet_aton(host)  # takes 127.1, 0x7f000001 and 2130706433, as a resolver does
    except (OSError, UnicodeError):
        return ""
    return "write it as a plain IP address"


def _patterns(webhook: WebhookDeclaration) -> Found:
    for key in ("kinds", "instances"):
        values: tuple[str, ...] = getattr(webhook, key)
        if not values:
            yield key, 'an empty list sends nothing; "*" = all'
        for value in values:
            if not _PATTERN.fullmatch(value):
                yield key, f"{value!r:.80} is no pattern of a-z, 0-9, -, _, * and ?"


def _paths(webhook: WebhookDeclaration) -> Found:
    for key in ("secret_file", "ca_file"):
        value = getattr(webhook, key)
        if value and (not value.startswith("/") or ".." in value.split("/")):
            yield key, f"it must be an absolute path without .., not {value!r:.80}"


_CHECKS: tuple[Callable[[WebhookDeclaration], Found], ...] = (*(_name, _url, _patterns, _paths),)

HEAD = """\
# Webhooks: addresses that the agent posts its events to, each event as one JSON object.
# Each begins with [[webhook]]. A reload applies changes.
# [[webhook]]
"""

TABLES = (
    ArrayTable(
        name="webhook",
        plain=WebhookDeclaration(),
        find_problem=find_webhook_problem,
        hide=hide_target,
        head=HEAD,
        example=WebhookDeclaration(
            name="ops",
            url="https://ops.example.com/wa-agent",
            secret_file="/etc/wa-agent/ops.secret",
        ),
    ),
)
