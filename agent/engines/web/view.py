"""The present knowledge of a session: one look at the page and the story so far make one claim. No
I/O and no clock: `now` is an argument, and the caller publishes what changed.

The page's words are wa-js's and WhatsApp Web's own; `engines.whatsapp.web_reason` translates them.
A start that fails has its reason here, too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from agent.core.model import PHASES, UNSETTLED
from agent.core.words import PASSKEY_REQUIRED, UNPAIRING, Claim, ConnectionStatus
from agent.engines import base, whatsapp

Status = ConnectionStatus

Form = TypeVar("Form")

REFUSALS = frozenset({"CONFLICT", "DEPRECATED_VERSION", "PROXYBLOCK", "SMB_TOS_BLOCK", "TOS_BLOCK"})
"""Stream modes and socket states after which the page does not go on by itself."""

_LIVES = frozenset({"MAIN", "SYNCING", "QR"})
"""Modes in which an offered update does not matter."""

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
    """Seconds since the loading last moved on; the engine's word, not the page's."""
    loaded: bool = False
    failure: str = ""
    """Error that the bundle threw when it started."""
    ready: bool = False
    auth: bool | None = None
    """True if a pairing is there; None: not known yet."""
    mode: str = ""
    info: str = ""
    socket: str = ""
    online: bool = True
    update: bool = False
    account: str = ""
    version: str = ""
    progress: float | None = None
    """Percent of the messages that came while the session was away."""
    sockets: int = 0
    frames: int = 0
    frame_age: float | None = None
    qr: str = ""
    qr_age: float | None = None
    qr_number: int = 0


@dataclass(frozen=True, slots=True)
class Story:
    """A session's past, as far as it decides how a look is read."""

    ended: str = ""
    """The word that ended the session; it stays until the next connect."""
    until_wall: float | None = None
    passing: str = ""
    """The last word that only explains an interruption."""
    announced: str = ""
    """A word that explains a logout which was not seen yet."""
    was_connected: bool = False
    passkey: bool = False
    """True if the page asked for a passkey; nothing can answer that."""


_LONGEST = {"qr": 2000, "words": 2000, "failure": 300, "address": 120, "origin": 120, "title": 60}
"""Signs of these texts of a page; 40 of any other."""


def read_fields(kind: type[Form], raw: Any) -> Form | None:
    """Check a page's answer field by field: a value of another type is left out."""
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
    """Return the Unix time of a page's moment: in seconds, or milliseconds as browsers count."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    if not 1e9 < raw < 1e14:
        return None
    return float(raw) if raw < 1e11 else raw / 1000


def next_story(
    story: Story, word: str, detail: str, until_wall: float | None, facts: PageFacts | None
) -> Story:
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
    """Note that the page went to another document; the site names a logout in its address."""
    if "post_logout=1" in address.partition("?")[2] and not story.ended:
        return _logged_out(story)
    return replace(story, announced="")


def _logged_out(story: Story) -> Story:
    # The reason announced beside a plain logout says more, if it is a known word.
    reason = story.announced if whatsapp.web_reason(story.announced) != "unknown" else ""
    return replace(story, ended=reason or "LOGOUT", was_connected=False)


def claim_of(facts: PageFacts | None, story: Story) -> Claim:
    """Return the claim without its proof."""
    if story.ended:
        reason = whatsapp.web_reason(story.ended)
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
    raw = "/".join(word or "-" for word in (facts.mode, facts.info, facts.socket))
    raw += " (an update is offered)" if facts.update else ""
    account, version = facts.account, facts.version
    return replace(claim, paired=facts.auth is True, account=account, raw=raw, version=version)


def _of_page(facts: PageFacts, story: Story) -> Claim:
    for word in (facts.mode, facts.socket):
        if word in REFUSALS:
            return Claim(Status.DISCONNECTED, whatsapp.web_reason(word))
    if not facts.ready:
        slow = facts.failure or (facts.loaded and facts.idle > SLOW_INJECTION)
        return _on_its_way(story, "injected", "injection_failed" if slow else "")
    if facts.update and facts.mode not in _LIVES and facts.age > SLOW_INJECTION:
        return Claim(Status.DISCONNECTED, whatsapp.web_reason("conn.needs_update"))
    if facts.auth:
        return _paired(facts, story)
    return _unpaired(facts, story)


def _paired(facts: PageFacts, story: Story) -> Claim:
    reached = facts.socket in ("CONNECTED", "") and facts.online
    if facts.mode == "MAIN" and reached and facts.info in ("NORMAL", ""):
        return Claim(Status.CONNECTED)
    if story.was_connected:
        return Claim(Status.RECONNECTING, whatsapp.web_reason(story.passing or "OFFLINE"))
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
    """Judge a page without a readable stream: long after it is ready, its modules have changed."""
    return "injection_failed" if not facts.mode and facts.age > SLOW_STREAM else ""


def _on_its_way(story: Story, phase: str, reason: str) -> Claim:
    status = Status.RECONNECTING if story.was_connected else Status.INITIALIZING
    return Claim(
        status, reason or (whatsapp.web_reason(story.passing) if story.passing else ""), phase
    )


# The document that the browser shows: WhatsApp Web, or something else. Its content is not trusted:
# it is shortened and shown.

SILENT = 25.0
"""Seconds in which nothing moved on in a document that is not ready."""

_UNSUPPORTED = re.compile(
    r"(works with|requires?|supports?|use|update|upgrade)\b.{0,60}"
    r"\b(Google Chrome|Chrome \d+|Firefox|Safari|browser)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Document:
    """One look at a document, WhatsApp's or not."""

    address: str = ""
    """Host and path, without what follows the question mark."""
    origin: str = ""
    status: int = 0
    """HTTP's status; 0: the browser does not say."""
    title: str = ""
    complete: bool = False
    modules: int = 0
    """WhatsApp's modules that the page defined so far; 0: it defines none."""
    words: str = ""
    """The beginning of the document's text; only for judging it."""

    @property
    def shown(self) -> str:
        """The document for people."""
        status = f"HTTP {self.status}" if self.status else "no HTTP status"
        return printable(f'{status} from {self.address}, title "{self.title}"')


def judge_document(document: Document, wanted: str, idle: float) -> str:
    """The reason why it is not WhatsApp Web; "" while it is, or may still become that. `idle`:
    seconds without progress."""
    settled = document.complete or idle >= SILENT
    # It may be on its way through several addresses.
    elsewhere = document.origin not in ("", base.origin_of(wanted)) and settled
    if document.status >= 400 or elsewhere:
        return "page_unusable"
    if document.modules:
        return ""
    if document.complete and _UNSUPPORTED.search(document.words):
        return "browser_unsupported"
    return "page_unusable" if not document.complete and idle >= SILENT else ""


def printable(words: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in words)


def place_of(address: str) -> str:
    """Return host and path of an address, as people see it."""
    parts = urlsplit(address)
    return printable(parts.netloc + parts.path)[:120]


LOOK = """(() => {
  const or = (read, other) => { try { return read() ?? other } catch (_) { return other } };
  const read = globalThis.__waAgent ? __waAgent.read() : null;
  // To count thousands of modules is for the time of their loading only.
  const count = () => Object.keys(require('__debug').modulesMap).length;
  const modules = read && read.ready ? 1 : or(count, 0);
  const text = modules ? '' : or(() => document.body.textContent.slice(0, 4000), '');
  return {
    read,
    document: {
      address: location.host + location.pathname, origin: location.origin,
      status: or(() => performance.getEntriesByType('navigation')[0].responseStatus, 0),
      title: document.title, complete: document.readyState === 'complete', modules,
      words: text.replace(/\\s+/g, ' ').slice(0, 2000),
    },
  };
})()"""
"""The question to any document: `read` is null if nothing of ours runs there."""

LONGEST = 900.0
"""Seconds after which bytes of a start no longer count: a page may fetch something for ever."""
_HALF = 20_000_000
"""Bytes at which the progress shows one half. How many will come is not known to anything here."""
_MODULE = 2_000
"""Bytes that a defined module counts as."""


class Advance:
    """One start, over all the documents that it shows."""

    def __init__(self, begun: float) -> None:
        self.begun = self._moved_at = begun
        self._amount = 0
        self._furthest: Claim | None = None

    def new_document(self, now: float) -> None:
        self._moved_at = now

    def came(self, size: int, modules: int, now: float, *, complete: bool) -> None:
        """Note how much of this document is there by now; less than an earlier one had is no
        progress."""
        amount = size + modules * _MODULE + complete
        if amount > self._amount and now - self.begun < LONGEST:
            self._amount, self._moved_at = amount, now

    def idle(self, now: float) -> float:
        return now - self._moved_at

    def forward(self, claim: Claim) -> Claim:
        """Return the claim, never behind what this start showed before."""
        if claim.status not in UNSETTLED:
            self._furthest = None
            return claim
        if claim.phase in ("loaded", "injected") and self._amount:
            share = self._amount / (self._amount + _HALF)
            claim = replace(claim, progress=round(share, 4))
        best = self._furthest
        if best is not None and _rank(claim) < _rank(best):
            claim = replace(claim, status=best.status, phase=best.phase, progress=best.progress)
        self._furthest = claim
        return claim


def _rank(claim: Claim) -> tuple[int, bool]:
    """Rank a claim: a session that lost its connection has no phase once its page is back."""
    phase = list(PHASES).index(claim.phase) if claim.phase in PHASES else len(PHASES)
    return phase, claim.status is ConnectionStatus.LOADING


PROOF = 90.0
"""Seconds without a frame after which a connection is doubted."""
PATIENCE = 60.0
"""Seconds that a start may go on before a second connect interrupts it."""


class SessionView:
    """A session as the page shows it; `claim` follows from what the page says."""

    def __init__(self, *, pairing_safe: bool = False) -> None:
        self.claim = Claim(Status.INITIALIZING, phase="process")
        self.facts: PageFacts | None = None
        self.address = ""
        """Address of the document that is shown."""
        self.silent = False
        """True if the last question to the page got no answer."""
        self.pairing_safe = pairing_safe
        """True if the pairing that the page shows is known to be on the disk."""
        self._story = Story()
        self._document = Document()
        self._advance = Advance(0.0)
        self._frames = 0
        self._proof_at: float | None = None

    def begin(self, now: float, word: str = "") -> None:
        """A start begins, the first one or another: what ended the last one is over. `word`: the
        interruption that it follows."""
        story = replace(self._story, ended="", announced="", until_wall=None, passkey=False)
        self._story = replace(story, passing=word or story.passing)
        self._advance, self._document, self.facts = Advance(now), Document(), None
        self.claim = replace(claim_of(None, self._story), phase="attached")
        if self.silent and not word and self.claim.status is Status.RECONNECTING:
            self.claim = replace(self.claim, reason="zombie")
        self.silent = False

    def ended(self, word: str) -> None:
        """Take in an end that is known for sure, before the page says so."""
        self._story = replace(self._story, ended=word, was_connected=False)
        self._conclude()

    @property
    def has_ended(self) -> bool:
        """True if WhatsApp ended the session; the claim stays until the agent connects it again."""
        return bool(self._story.ended)

    def pairing_is_safe(self) -> None:
        """Note that the pairing is on the disk: it may be published."""
        self.pairing_safe = True
        self._conclude()

    @property
    def pairing_to_save(self) -> bool:
        """True if the page shows a pairing that a killed browser may still lose."""
        return not self.pairing_safe and self.facts is not None and self.facts.auth is True

    def failed(self, reason: str, raw: str) -> None:
        self.claim = Claim(Status.DISCONNECTED, reason, raw=raw[:200])

    def word(self, word: str, raw: Mapping[str, Any], now: float) -> None:
        detail, until = raw.get("d"), parse_wall(raw.get("until"))
        said = detail[:64] if isinstance(detail, str) else ""
        facts = read_fields(PageFacts, raw.get("s"))
        self._story = next_story(self._story, word, said, until, facts)
        self.look(raw.get("s"), now)

    def look(self, raw: Any, now: float) -> None:
        facts = read_fields(PageFacts, raw)
        if facts is None:
            return
        self.facts = replace(facts, idle=self._advance.idle(now))
        self._conclude()
        if facts.frames != self._frames:
            self._frames = facts.frames
            self._proof_at = now - (facts.frame_age or 0.0)
        elif not facts.sockets and self.claim.status is Status.CONNECTED:
            # The page's socket is out of our sight (in a web worker): the page's word must do.
            self._proof_at = now

    def look_at_document(self, raw: Mapping[str, Any], size: int, wanted: str, now: float) -> None:
        """Take in the answer to LOOK, and how many bytes came: the document is WhatsApp's, or on
        its way to it, or called what it is."""
        if (document := read_fields(Document, raw.get("document"))) is None:
            return
        self._document = document
        if self.facts is None or not self.facts.ready:
            self._advance.came(size, document.modules, now, complete=document.complete)
        self.look(raw.get("read"), now)
        if reason := judge_document(document, wanted, self._advance.idle(now)):
            self.failed(reason, document.shown)

    @property
    def is_loading(self) -> bool:
        """True if the page is not ready yet and can still get there."""
        starting = self.claim.status not in (Status.DISCONNECTED, Status.AUTH_FAILURE)
        return starting and (self.facts is None or not self.facts.ready)

    def new_document(self, address: str, now: float) -> None:
        self._story = left_for(self._story, address)
        self.address, self.facts, self._frames = address, None, 0
        self._document = Document()
        self._advance.new_document(now)
        self._conclude()

    def claim_at(self, now: float) -> Claim:
        age = None if self._proof_at is None else max(0.0, now - self._proof_at)
        return replace(self.claim, proof_age=age)

    @property
    def lacks_code(self) -> bool:
        """True if WhatsApp asked for a passkey and shows no code for another try."""
        shown = self.facts is not None and self.facts.qr
        return self.claim.reason == PASSKEY_REQUIRED and not shown

    def needs_revival(self, now: float) -> bool:
        """True if a connect that is asked for while a browser runs must change anything."""
        if self.silent:
            return True
        begun, idle = self._advance.begun, self._advance.idle(now)
        match self.claim.status:
            case Status.QR_REQUIRED:
                return self.lacks_code
            case Status.CONNECTED:
                return self._proof_at is not None and now - self._proof_at > PROOF
            case Status.INITIALIZING | Status.LOADING:
                return now - begun > PATIENCE and idle > PATIENCE / 2
        return True

    def _conclude(self) -> None:
        claim = claim_of(self.facts, self._story)
        if claim.status is Status.CONNECTED:
            self._story = replace(self._story, passing="", was_connected=True)
        if claim.reason in UNPAIRING and not claim.paired:
            self.pairing_safe = False
        if claim.reason == "injection_failed":
            failure = f": {self.facts.failure}" if self.facts and self.facts.failure else ""
            claim = replace(claim, raw=f"{self._document.shown}{failure}"[:200])
        if claim.paired and not self.pairing_safe:
            # Nothing is promised before the pairing is on the disk.
            claim = replace(claim, paired=False)
            if claim.status is Status.CONNECTED:
                claim = replace(claim, status=Status.LOADING, phase="sync")
        self.claim = self._advance.forward(claim)
