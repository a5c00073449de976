"""What a backend of this engine can be told, and the times it keeps. Seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from agent.engines.remote.place import Place, flag, header, read_place, text, wrong


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """Out of the flat table that all remote engines share; what is another engine's is not read."""

    name: str
    place: Place
    key: str = field(repr=False)
    """The server's global key: an instance's own token opens that instance only."""
    prove: bool = True
    hook_base: str = ""
    """How our hooks begin, whatever their secret; "" = the server is not told to call us."""
    hook_url: str = field(default="", repr=False)
    """The whole address, with its secret."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long; a test may hurry."""

    list_holds: float = 30.0
    """The list is asked for at most this often: each of its rows costs three counts there."""
    list_spacing: float = 2.0
    """Between two lists, also where what was listed was changed by us."""
    old_list_holds: float = 120.0
    """1.8 asks WhatsApp once for each open session before it shows its list."""
    probe_limit: float = 8.0
    """For a whole probe, or 0.8 of a request's time if that is less: who asks waits 10 s, and
    must hear that the server does not answer instead of giving up on the session."""
    code_holds: float = 45.0
    """How long one QR code is shown; Evolution sets it for Baileys."""
    code_wait: float = 3.0
    """So long somebody who asks for a code waits for the first one."""
    pairing_wait: float = 7.0
    blank_limit: float = 25.0
    """Connecting without a code and without a pairing for so long is no start any more."""
    gone_wait: float = 5.0
    """A deletion is answered before it is done."""
    look_every: float = 0.3
    hook_again: float = 600.0
    """A webhook that was seen as it should be is looked at again after this time."""
    version_again: float = 300.0


def read_settings(told: Mapping[str, Any]) -> EvolutionSettings:
    """Raise ConfigError naming the setting that cannot be used."""
    name = text(told, "name")
    key = header(told, "key")
    if not key:
        raise wrong("key", "missing")
    base = url = ""
    if flag(told, "webhook", False):
        base = f"{_reachable(text(told, 'webhook_url'))}/hooks/{name}/"
        secret = header(told, "hook")
        if not secret or "/" in secret:
            raise wrong("hook", "no secret for the webhook's address")
        url = base + secret
    return EvolutionSettings(name, read_place(told), key, flag(told, "prove", True), base, url)


def _reachable(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong("webhook_url", "not the http address under which the server reaches the agent")
    return url.rstrip("/")
