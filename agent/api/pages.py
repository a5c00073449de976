"""The pages for people: self-contained, no request leaves this server."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

from agent.api.call import Call

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


def page(name: str) -> Callable[[Call], Awaitable[web.Response]]:
    body = (files("agent.api") / "page" / name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    async def show_page(call: Call) -> web.Response:
        answer = web.Response(body=body, content_type=kind, charset="utf-8")
        answer.headers["Content-Security-Policy"] = CSP
        answer.headers["X-Frame-Options"] = "DENY"
        return answer

    return show_page
