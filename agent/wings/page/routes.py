"""The pages and their parts: open to all, for they hold nothing of the agent's."""

from agent.api.http.auth import Right
from agent.api.http.call import Route
from agent.wings.page.openapi import show_openapi
from agent.wings.page.pages import PARTS, page

OPEN = Right.OPEN

ROUTES = (
    Route("GET", "/openapi.json", OPEN, show_openapi, "This description"),
    Route("GET", "/docs", OPEN, page("docs.html"), "The interface, for people"),
    Route("GET", "/", OPEN, page("dashboard.html"), "The dashboard, for people"),
    *(Route("GET", f"/page/{name}", OPEN, page(name), "Part of a page") for name in PARTS),
)
