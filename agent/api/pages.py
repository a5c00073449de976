"""The pages for people: self-contained, no request leaves this server."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from agent.api.http.call import Call

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = Path(__file__).parent / "page"
PARTS = (
    *("theme.js", "dashboard.js", "agent.js", "show.js", "words.js", "answers.js", "story.js"),
    *("dialogs.js", "actions.js", "menu.js", "arrange.js", "attention.js", "backends.js"),
    *("cards.js", "table.js", "copies.js", "machine.js", "machines.js", "create.js", "overview.js"),
    *("instance.js", "code.js", "chart.js", "history.js", "evidence.js", "settings.js"),
    *("dashboard.css", "icon.svg", "docs.js", "page.css"),
)
"""The files of the pages, each at /page/NAME."""

_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
}


def page(name: str) -> Callable[[Call], Awaitable[web.Response]]:
    body = (PAGE / name).read_bytes()
    kind = name.rpartition(".")[2]

    async def show_page(call: Call) -> web.Response:
        return as_page(body, kind)

    return show_page


def as_page(body: bytes, kind: str) -> web.Response:
    answer = web.Response(body=body, content_type=_TYPES[kind], charset="utf-8")
    answer.headers["Content-Security-Policy"] = CSP
    answer.headers["X-Frame-Options"] = "DENY"
    return answer
