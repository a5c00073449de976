"""The document that the browser shows: WhatsApp Web, or something else. Its content is not trusted:
it is shortened and shown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent.engines.raw import text
from agent.engines.settings import origin_of

SILENT = 25.0
"""Seconds in which nothing moved on in a document that is not ready."""
RELOADS, RELOADS_WINDOW = 2, 120.0
"""The page may load an address again so many times within these seconds."""
PORTAL = 511
"""HTTP's own status for: the network wants a login first."""

_UNSUPPORTED = re.compile(
    r"(works with|requires?|supports?|use|update|upgrade)\b.{0,60}"
    r"\b(Google Chrome|Chrome \d+|Firefox|Safari|browser)",
    re.IGNORECASE | re.DOTALL,
)
_DOMAIN = "whatsapp.com"


@dataclass(frozen=True, slots=True)
class Document:
    """One look at the document, whatever it is."""

    address: str = ""
    """Host and path, without what follows the question mark."""
    origin: str = ""
    status: int = 0
    """HTTP's; 0: the browser does not say."""
    title: str = ""
    complete: bool = False
    modules: int = 0
    """WhatsApp's modules that the page defined so far; 0: it defines none."""
    form: bool = False
    """The page asks for something to be filled in."""
    words: str = ""
    """The beginning of its text; only for judging it."""

    @property
    def shown(self) -> str:
        """For people."""
        status = f"HTTP {self.status}" if self.status else "no HTTP status"
        return f'{status} from {self.address}, title "{self.title}"'


@dataclass(frozen=True, slots=True)
class Strange:
    """What came is not WhatsApp Web: a reason's code, and the address, status and title."""

    reason: str
    raw: str


def parse_document(raw: Any) -> Document | None:
    """A look at the document, checked field by field; None when it is none."""
    if not isinstance(raw, Mapping):
        return None
    return Document(
        address=_shown(raw.get("address"), 120),
        origin=_shown(raw.get("origin"), 120),
        status=_count(raw.get("status"), 999),
        title=_shown(raw.get("title"), 60),
        complete=raw.get("complete") is True,
        modules=_count(raw.get("modules"), 10**7),
        form=raw.get("form") is True,
        words=str(raw.get("words", ""))[:2000],
    )


def judge_document(document: Document, wanted: str, idle: float) -> Strange | None:
    """None while it is, or may still become, WhatsApp Web. `idle`: seconds without progress."""
    if document.status >= 400:
        portal = document.status == PORTAL
        return Strange("captive_portal" if portal else "page_http_error", document.shown)
    settled = document.complete or idle >= SILENT
    if document.origin and document.origin != origin_of(wanted):
        # It may be on its way through several addresses.
        if not settled:
            return None
        foreign = not _is_whatsapps(document.origin)
        reason = "captive_portal" if foreign and document.form else "page_elsewhere"
        return Strange(reason, document.shown)
    if document.modules:
        return None
    if document.complete and _UNSUPPORTED.search(document.words):
        return Strange("browser_unsupported", document.shown)
    if not document.complete and idle >= SILENT:
        return Strange("page_silent", f"{document.shown}: its server sent nothing for {idle:.0f} s")
    return None


def _is_whatsapps(origin: str) -> bool:
    host = urlsplit(origin).hostname or ""
    return host == _DOMAIN or host.endswith(f".{_DOMAIN}")


def _count(raw: Any, most: int) -> int:
    return raw if type(raw) is int and 0 <= raw <= most else 0


def _shown(raw: Any, limit: int) -> str:
    printable = (sign if sign.isprintable() else " " for sign in text(raw, 4096))
    return "".join(printable)[:limit].strip()


class Reloads:
    """The documents that the page began by itself. The same address again and again is a finding;
    a redirect leads to another one."""

    def __init__(self) -> None:
        self._began: list[tuple[float, str]] = []

    def clear(self) -> None:
        self._began.clear()

    def judge(self, address: str, now: float) -> str:
        """Count this document; what to report of it, "" = nothing."""
        place = place_of(address)
        self._began = [each for each in self._began if each[0] >= now - RELOADS_WINDOW]
        self._began.append((now, place))
        times = sum(began == place for _, began in self._began)
        if times <= RELOADS:
            return ""
        return f"{place} reloaded itself {times} times in {RELOADS_WINDOW:.0f} s"


def place_of(address: str) -> str:
    """Host and path of an address, as people are shown it."""
    parts = urlsplit(address)
    return _shown(parts.netloc + parts.path, 120)


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
      form: or(() => document.querySelector('form, input') !== null, false),
      words: text.replace(/\\s+/g, ' ').slice(0, 2000),
    },
  };
})()"""
"""Asked in any document: `read` is null where nothing of ours runs."""
