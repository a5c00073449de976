"""The meaning of the page's words: one look at the page and the story so far make one claim. The
words are wa-js's and WhatsApp Web's own; `engines.whatsapp.web_reason` translates them. A start
that fails has its reason here, too."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from agent.core.words import PASSKEY_REQUIRED, UNPAIRING, Claim, ConnectionStatus
from agent.engines.whatsapp import web_reason

Status = ConnectionStatus
Form = TypeVar("Form")

REFUSALS = frozenset({"CONFLICT", "DEPRECATED_VERSION", "PROXYBLOCK", "SMB_TOS_BLOCK", "TOS_BLOCK"})
"""Stream modes and socket states after which the page does not go on by itself."""

_LIVES = frozenset({"MAIN", "SYNCING", "QR"})
"""Modes in which an update that is offered is no condition."""

FRESH_PAGE = frozenset(
    {"browser_unsupported", "client_outdated", "injection_failed", "page_unusable"}
)
"""Reasons that an old copy of the page may cause: one load past every cache comes first."""

REASON_OF = {
    "page_unreachable": "unreachable",
    "page_unusable": "page_unusable",
    "page_missing": "misconfigured",
    "setpriv_missing": "misconfigured",
    "sandbox_not_possible": "misconfigured",
    "browser_missing": "parts_missing",
    "bundle_missing": "parts_missing",
    "bundle_changed": "parts_missing",
    "storage_failed": "storage_failed",
    "profile_in_use": "profile_in_use",
}
"""Error code of a start → reason of the claim."""

SLOW_INJECTION = 25.0
"""Seconds without progress after which the bundle, not the network, is what keeps us waiting."""
SLOW_STREAM = 40.0

_ENDS = frozenset({"account_temporarily_banned", "storage_initialization_error"})
"""Words of the page's backend that end a session at once."""
_NAMES_LOGOUT = "unexpected_logout_modal"
"""The word that names a logout which is still to be seen."""


@dataclass(frozen=True, slots=True)
class PageFacts:
    """One look at the page. Empty text: WhatsApp's modules do not tell (yet)."""

    age: float = 0.0
    """Seconds since this document began."""
    idle: float = 0.0
    """Seconds since its loading last moved on; not the page's word but the engine's."""
    loaded: bool = False
    failure: str = ""
    """What the bundle threw when it started."""
    ready: bool = False
    auth: bool | None = None
    """Whether a pairing is there; None: not known yet."""
    mode: str = ""
    info: str = ""
    socket: str = ""
    online: bool = True
    update: bool = False
    account: str = ""
    version: str = ""
    progress: float | None = None
    """Percent of the messages that came while it was away."""
    sockets: int = 0
    frames: int = 0
    frame_age: float | None = None
    qr: str = ""
    qr_age: float | None = None
    qr_number: int = 0


@dataclass(frozen=True, slots=True)
class Story:
    """What happened before this look, as far as it decides what the look means."""

    ended: str = ""
    """The word that ended the session; it stays until the next connect."""
    until_wall: float | None = None
    passing: str = ""
    """The last word that only explains an interruption."""
    announced: str = ""
    """A word that explains a logout which was not seen yet."""
    was_connected: bool = False
    passkey: bool = False
    """The page asked for a passkey; nothing can answer it."""


_LONGEST = {"qr": 2000, "words": 2000, "failure": 300, "address": 120, "origin": 120, "title": 60}
"""Signs of a text that a page says; 40 of any other."""


def read_fields(kind: type[Form], raw: Any) -> Form | None:
    """What a page says, checked field by field: a value of another type is left out."""
    if not isinstance(raw, Mapping):
        return None
    found: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]
        value = raw.get(each.name)
        if type(value) is int and each.type in (float, float | None):
            value = float(value)
        if isinstance(value, str):
            value = value[: _LONGEST.get(each.name, 40)]
        if isinstance(value, each.type):  # type: ignore[arg-type]
            found[each.name] = value
    return kind(**found)


def parse_wall(raw: Any) -> float | None:
    """A moment as the page tells it: seconds, or milliseconds as browsers count."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    if not 1e9 < raw < 1e14:
        return None
    return float(raw) if raw < 1e11 else raw / 1000


def next_story(
    story: Story, word: str, detail: str, until_wall: float | None, facts: PageFacts | None
) -> Story:
    """Take one word of the page in."""
    if word == "passkey":
        unpaired = facts is not None and facts.auth is not True
        return replace(story, passkey=story.passkey or unpaired)
    if word == "conn.logout_reason":
        return replace(story, announced=detail)
    if word == "conn.logout":
        return _logged_out(story)
    if word == "backend":
        if detail in _ENDS:
            return replace(story, ended=detail, until_wall=until_wall)
        if detail == _NAMES_LOGOUT:
            return replace(story, announced=detail)
        return replace(story, passing=detail)
    return story


def left_for(story: Story, address: str) -> Story:
    """The page went to another document; the real site names a logout in its address."""
    if "post_logout=1" in address.partition("?")[2] and not story.ended:
        return _logged_out(story)
    return replace(story, announced="")


def _logged_out(story: Story) -> Story:
    # What is named beside a plain logout says more, if it is a word that we know.
    reason = story.announced if web_reason(story.announced) != "unknown" else ""
    return replace(story, ended=reason or "LOGOUT", was_connected=False)


def claim_of(facts: PageFacts | None, story: Story) -> Claim:
    """The claim without its proof."""
    if story.ended:
        reason = web_reason(story.ended)
        return Claim(
            Status.DISCONNECTED,
            reason,
            until_wall=story.until_wall,
            # A look from before the end still shows the pairing.
            paired=facts is not None and facts.auth is True and reason not in UNPAIRING,
            raw=story.ended,
        )
    if facts is None:
        return _on_its_way(story, "loaded", "")
    claim = _of_page(facts, story)
    return replace(
        claim,
        paired=facts.auth is True,
        account=facts.account,
        raw=_raw(facts),
        version=facts.version,
    )


def _of_page(facts: PageFacts, story: Story) -> Claim:
    for word in (facts.mode, facts.socket):
        if word in REFUSALS:
            return Claim(Status.DISCONNECTED, web_reason(word))
    if not facts.ready:
        slow = facts.failure or (facts.loaded and facts.idle > SLOW_INJECTION)
        return _on_its_way(story, "injected", "injection_failed" if slow else "")
    if facts.update and facts.mode not in _LIVES and facts.age > SLOW_INJECTION:
        return Claim(Status.DISCONNECTED, web_reason("conn.needs_update"))
    if facts.auth:
        return _paired(facts, story)
    return _unpaired(facts, story)


def _paired(facts: PageFacts, story: Story) -> Claim:
    reached = facts.socket in ("CONNECTED", "") and facts.online
    if facts.mode == "MAIN" and reached and facts.info in ("NORMAL", ""):
        return Claim(Status.CONNECTED)
    if story.was_connected:
        return Claim(Status.RECONNECTING, web_reason(story.passing or "OFFLINE"))
    if "SYNCING" in (facts.mode, facts.info) or facts.info == "RESUMING":
        share = None if facts.progress is None else min(1.0, max(0.0, facts.progress / 100))
        return Claim(Status.LOADING, phase="sync", progress=share)
    if facts.mode == "OFFLINE" or facts.socket == "TIMEOUT" or not facts.online:
        return Claim(Status.INITIALIZING, "connection_lost", "login")
    return Claim(Status.LOADING, _without_stream(facts), "login")


def _unpaired(facts: PageFacts, story: Story) -> Claim:
    if story.passkey:
        return Claim(Status.QR_REQUIRED, PASSKEY_REQUIRED, "login")
    if "PAIRING" in (facts.socket, facts.info) and facts.qr_number:
        return Claim(Status.INITIALIZING, phase="pairing")  # before its first code it says so, too
    if facts.socket == "UNPAIRED_IDLE":
        return Claim(Status.QR_REQUIRED, "qr_idle", "login")
    if (facts.mode == "QR" or facts.socket == "UNPAIRED") and facts.qr:
        return Claim(Status.QR_REQUIRED, phase="login")
    if facts.mode == "OFFLINE" or facts.socket == "TIMEOUT" or not facts.online:
        return Claim(Status.INITIALIZING, "connection_lost", "login")
    return Claim(Status.INITIALIZING, _without_stream(facts), "login")


def _without_stream(facts: PageFacts) -> str:
    """A page whose stream cannot be read long after it is ready has changed its modules."""
    return "injection_failed" if not facts.mode and facts.age > SLOW_STREAM else ""


def _on_its_way(story: Story, phase: str, reason: str) -> Claim:
    status = Status.RECONNECTING if story.was_connected else Status.INITIALIZING
    return Claim(status, reason or (web_reason(story.passing) if story.passing else ""), phase)


def _raw(facts: PageFacts) -> str:
    words = [facts.mode or "-", facts.info or "-", facts.socket or "-"]
    return "/".join(words) + (" (an update is offered)" if facts.update else "")
