"""The words that the agent, its workers and their engines share: ids, states, claims. Apart from
the agent's own model: each worker has this module in its memory."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, NewType

from agent.errors import ConfigError, FolderUnusable, InvalidRequest

InstanceId = NewType("InstanceId", str)

ID_PATTERN = r"[a-z0-9][a-z0-9_-]{0,47}"
_ID = re.compile(ID_PATTERN)


def parse_instance_id(text: object) -> InstanceId:
    """Accept exactly `[a-z0-9][a-z0-9_-]{0,47}` but "all", which commands take for every session;
    all code that names an instance uses this."""
    if isinstance(text, str) and _ID.fullmatch(text) and text != "all":
        return InstanceId(text)
    form = "1 to 48 of a-z, 0-9, - and _, beginning with a letter or digit, and not the word all"
    why = f"cannot use {text!r:.80} as an instance id: {form}"
    raise InvalidRequest(why, field="id", code="invalid_id")


def counted(count: int, word: str) -> str:
    return f"{count} {word if count == 1 else word + 's'}"


class ConnectionStatus(StrEnum):
    INITIALIZING = "INITIALIZING"
    LOADING = "LOADING"
    QR_REQUIRED = "QR_REQUIRED"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    DISCONNECTED = "DISCONNECTED"
    AUTH_FAILURE = "AUTH_FAILURE"


class SessionFiles(StrEnum):
    """The state in which the vault found the session files of an instance."""

    ABSENT = "absent"
    UNPAIRED = "unpaired"
    WHOLE = "whole"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    """The session folder cannot be read, for rights or for the disk."""


ADOPTED = "adopted"
"""The setting that tells whether the agent found a session on its server, or was asked to make it.
Without it, one with a name of its own there (`remote`) counts as found."""
AGENT_SETTINGS = frozenset({"name", "memory_limit"})
"""Settings of an instance that the agent reads itself; its engine does not get them."""


FOLDER_UNUSABLE, LEASE_OVER, MISCONFIGURED = FolderUnusable.exit_status, 77, ConfigError.exit_status
"""The exit statuses of a worker whose folder or identity file is away or unreadable; whose lease
ended; whose settings are wrong. A restart by its host alone changes none of them."""
HELD = 75
"""Exit status of a worker whose session another one holds."""
LEAST_MEMORY, MOST_MEMORY = 32 << 20, 1 << 48
"""Bytes: with less than the first no worker starts; 0 is no limit."""
BEHIND = 1.25
"""A worker is killed at this multiple of its memory limit: the gentle steps come first."""

SUSPECT = "unpaired_suspect"
"""The reason code of a paired session that came up unpaired without a logout."""
PASSKEY_REQUIRED, PASSKEY_SUSPECTED = "passkey_required", "passkey_suspected"
"""The reason codes of a pairing that WhatsApp wants a passkey for, and of one that it accepted and
never completed."""
NO_LEASE = "no_lease"
"""The reason code of a session of a fleet whose machine may not run it now."""
ENDS = {MISCONFIGURED: "misconfigured", LEASE_OVER: NO_LEASE, HELD: "held_elsewhere"}
"""The reason codes of workers that ended with these exit statuses."""
SAME_DEVICE = "same_device"
"""The reason code of a session whose linked device another instance is."""
OTHER_ACCOUNT = "other_account"
"""The reason code of a session on a backend that is another account's by now."""
NOT_TOLD = "not_told"
"""The reason code of a session whose program runs and tells nothing of it."""
UNPAIRING = frozenset({"logout", "banned", "remote_missing", "renewal_unfinished"})
"""The reason codes after which WhatsApp no longer knows the pairing (Reason.unpairs)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An engine's word about its session. `proof_age` says how far it is proved."""

    status: ConnectionStatus
    reason: str = ""
    """A short code, lower snake case, of the last change for the worse ("" = none)."""
    phase: str = ""
    """Where a start stands: process, attached, loaded, injected, pairing, login, sync."""
    progress: float | None = None
    """0 to 1 while a sync tells it."""
    proof_age: float | None = field(default=None, compare=False)
    """Seconds since WhatsApp last proved this status (a frame, an answered query)."""
    still_for: float = field(default=0.0, compare=False)
    """Seconds since status, phase or progress last moved on, by the worker's clock."""
    paired: bool = False
    account: str = ""
    until_wall: float | None = None
    """Unix time of the end of a temporary refusal, if WhatsApp named it."""
    raw: str = ""
    """The engine's own word, for people."""
    version: str = field(default="", compare=False)
    """The version of WhatsApp Web, or of the client, if the engine knows it."""
    guess: str = ""
    """A reason's code that the engine takes for the cause without a word for it from WhatsApp or
    the server: people see it, no decision is made from it."""
    useless: tuple[str, ...] = ()
    """Steps of a repair that the engine knows to change nothing in this state: reconnect,
    restart."""
    pairing_unknown: bool = False
    """True if the engine cannot tell yet whether the session is paired: no step may end that."""
    made_elsewhere: bool = False
    """True if others made the session on its server, and not this agent."""

    @property
    def down(self) -> bool:
        """True if the engine is not connected and does not try."""
        return self.status in (ConnectionStatus.DISCONNECTED, ConnectionStatus.AUTH_FAILURE)


class ServerClaim(NamedTuple):
    """The state of a backend's server, by the last check."""

    up: bool
    reason: str = ""
    """A short code while it is not up: unreachable, tls, timeout, garbage, refused_key,
    licence_missing, not_found (another program answers), failing (it answers 4xx or 5xx). While it
    is up: list_failed, for only its list does not come."""
    sentence: str = ""
    """Sentence for people; without keys."""
    version: str = ""
    """The server's own version, where it reports one."""
    seconds: float = 0.0
    """Seconds of the server's last answer."""
    sessions: int | None = None
    """Number of the server's sessions; None = it was not asked."""


UNMEASURED = "unmeasured"
"""The reason of a verdict on a session whose backend does not answer now."""
NO_PROOF = "no_proof"
"""The reason of a session whose server lacks what proves it."""


class RemoteSession(NamedTuple):
    name: str
    """The server's name of the session, or its number as text."""
    status: str = ""
    """The server's own word for the session's status."""
    account: str = ""
    """Phone number or JID that the session is paired with; "" = none that the list has."""
    title: str = ""
    """The name for people on the server, where `name` is a number; "" = there is none."""


class Address(NamedTuple):
    """The server that a session must reach before it can log in."""

    url: str
    """http:// or https:// with a host; file:// is a stand-in for a network (the sandbox's): it
    is away until the moment, in Unix seconds, that the file holds."""
    proxy: str = ""
    """scheme://host:port on the way to the server; "" = none."""

    @property
    def name(self) -> str:
        """Host and port, and the proxy, for people."""
        host = self.url.partition("://")[2].partition("/")[0]
        if self.url.startswith("file:"):
            return "the sandbox's network"
        proxy = self.proxy.partition("://")[2].rpartition("@")[2]  # without its password
        return f"{host} through {proxy}" if proxy else host


KEPT = "kept"
"""The kind of a happening that tells how far what arrived is kept: the newest says it all."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something countable that happened in a session; never with a message's text."""

    kind: str
    """message, read_later, ack, crypto_error, key_regeneration, error"""
    detail: dict[str, Any] = field(default_factory=dict)


class Category(StrEnum):
    """The category of a log line and of a journal entry."""

    SESSION = "SESSION"
    RECONNECT = "RECONNECT"
    HEALTH = "HEALTH"
    MEMORY = "MEMORY"
    RECOVERY = "RECOVERY"
    CRYPTO = "CRYPTO"
    API = "API"
    SYSTEM = "SYSTEM"
