"""The settings of an Evolution backend, and the times it keeps. Standard library only. Seconds."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.setting import setting
from agent.engines.remote.declaration import (
    BackendDeclaration,
    Fault,
    read_declaration,
    refuse,
    url_fault,
)

_SECRET = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What a [[backend]] of this engine has beside the settings of every backend."""

    webhook: bool = setting(False, "true = the server posts its events to this agent")
    webhook_url: str = setting(
        "", "http://HOST:PORT at which the server reaches this agent's API", check=url_fault
    )


def find_faults(backend: BackendDeclaration) -> Iterator[Fault]:
    """What cannot be true together."""
    if not backend.key and not backend.key_file:
        yield ("key",), "an Evolution API server needs key or key_file"
    if backend.own.webhook and not backend.own.webhook_url:
        yield ("webhook_url", "webhook"), "webhook = true needs the address of this agent's API"


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """What a worker of this engine knows of its server."""

    server: BackendDeclaration
    """Its key is the global one: an instance's own token opens that instance only."""
    hook_base: str = ""
    """How our hooks begin, whatever their secret; "" = the server is not told to call us."""
    hook_url: str = field(default="", repr=False)
    """The whole address, with its secret."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long; a test may hurry."""

    list_holds: float = 30.0
    """The age up to which a list is used again: each row costs the server three counts."""
    list_spacing: float = 2.0
    """Between two requests for the list, also after we changed a session."""
    old_list_holds: float = 120.0
    """1.8 asks WhatsApp once for each open session before it shows its list."""
    probe_limit: float = 8.0
    """For a whole probe, or 0.8 of a request's time if that is less: the agent waits 10 s for it,
    and must learn that the server is silent before it gives up on the session."""
    code_holds: float = 45.0
    """How long one QR code is shown; Evolution sets it for Baileys."""
    code_wait: float = 3.0
    """How long a request for a code waits for the first one."""
    pairing_wait: float = 7.0
    blank_limit: float = 25.0
    """After so long in `connecting` without a code a session is said to hang."""
    login: float = 3.0
    """Before it connects for so long, what the server writes for a request may break its login."""
    account_again: float = 300.0
    """Between two questions whether the keys of a session that is not open have an account."""
    gone_wait: float = 5.0
    """How long a logout may take after the server answered it."""
    removal_wait: float = 45.0
    """How long a deletion may take after the server answered it."""
    removal_again: float = 600.0
    """For so long after a request to delete a session the server may still be at it."""
    look_every: float = 0.3
    stays_closed: float = 180.0
    """After so long in `close` the server makes no more tries of its own. Before a try it asks the
    internet for a version, which takes 130 s where nothing answers; the try takes 20 to 30 s."""
    looks_apart: float = 15.0
    """Less than a try takes: looks further apart do not show that it stayed closed."""
    hook_again: float = 600.0
    """Until a webhook that is as it should be is looked at again."""
    version_again: float = 300.0


def read_settings(raw: Mapping[str, Any]) -> EvolutionSettings:
    """ConfigError names the setting that cannot be used."""
    backend = read_declaration(raw, BackendSettings())
    for keys, fault in find_faults(backend):
        raise refuse(keys[0], fault)
    base = url = ""
    if backend.own.webhook:
        base = f"{backend.own.webhook_url.rstrip('/')}/hooks/{backend.name}/"
        secret = raw.get("hook", "")
        if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
            raise refuse("hook", "no secret for the webhook's address")
        url = base + secret
    return EvolutionSettings(backend, base, url)
