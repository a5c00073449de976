"""The pages for people: self-contained, no request leaves this server.

Each file is packed once and sent with its checksum as ETag: a page that is loaded again over a slow
line asks whether its files changed, and gets none of those that did not.
"""

import gzip
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Route
from agent.page.openapi import show_openapi

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = {file.name: file for file in (Path(__file__).parent / "files").iterdir()}
PARTS = tuple(sorted(name for name in FILES if name.endswith((".js", ".css", ".svg"))))
"""The files of the pages, each at /page/NAME."""

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_IMPORT = re.compile(r'from "/page/([a-z_]+\.js)"')
_MODULE = re.compile(r'<script src="/page/([a-z]+\.js)" type="module">')
_PRELOADS = "<!-- modules -->"


class Page:
    """One file as it is sent."""

    def __init__(self, body: bytes, kind: str) -> None:
        self._body, self._packed = body, gzip.compress(body, mtime=0)
        self._type = _TYPES[kind]
        self._tag = hashlib.sha256(body).hexdigest()[:16]

    def answer(self, request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        if any(tag.value in (self._tag, "*") for tag in known):
            answer = web.Response(status=304)
        else:
            packs = "gzip" in request.headers.get("Accept-Encoding", "")
            body = self._packed if packs else self._body
            answer = web.Response(body=body, content_type=self._type, charset="utf-8")
            if packs:
                answer.headers["Content-Encoding"] = "gzip"
        answer.etag = self._tag
        answer.headers["Vary"] = "Accept-Encoding"
        answer.headers["Cache-Control"] = "no-cache"  # kept, and asked about each time
        answer.headers["Content-Security-Policy"] = CSP
        answer.headers["X-Frame-Options"] = "DENY"
        return answer


def page(name: str) -> Callable[[Call], Awaitable[web.Response]]:
    made = Page(_with_preloads(FILES[name].read_bytes()), name.rpartition(".")[2])

    async def show_page(call: Call) -> web.Response:
        return made.answer(call.request)

    return show_page


def _with_preloads(body: bytes) -> bytes:
    """A page names all modules that its script imports, so that they load side by side."""
    text = body.decode()
    if _PRELOADS not in text:
        return body
    links = [
        f'<link rel="modulepreload" href="/page/{name}">'
        for script in _MODULE.findall(text)
        for name in _imported_by(script)
    ]
    return text.replace(_PRELOADS, "\n".join(links)).encode()


def _imported_by(script: str) -> Iterator[str]:
    """The modules that a script imports, and those import, each once."""
    known, wanted = {script}, [script]
    for name in wanted:
        for imported in _IMPORT.findall(FILES[name].read_text(encoding="utf-8")):
            if imported not in known:
                known.add(imported)
                wanted.append(imported)
    yield from wanted[1:]


ROUTES = (
    Route("GET", "/openapi.json", Right.OPEN, show_openapi, "This description"),
    Route("GET", "/docs", Right.OPEN, page("docs.html"), "The interface, for people"),
    Route("GET", "/", Right.OPEN, page("dashboard.html"), "The dashboard, for people"),
    *(Route("GET", f"/page/{name}", Right.OPEN, page(name), "Part of a page") for name in PARTS),
)
