"""The runbook as a page, which every alert links to. It is public and needs no key."""

import re
from functools import cache
from html import escape

from aiohttp import web

from agent.api.http.call import Call
from agent.config.alerts import alert_table
from agent.core.alerts import Alert
from agent.metrics.runbook import paragraphs
from agent.wings.page.pages import PAGE, Page

_CODE = re.compile(r"`([^`]+)`")


async def show_runbook(call: Call) -> web.Response:
    return _page().answer(call.request)


@cache
def _page() -> Page:
    frame = (PAGE / "runbook.html").read_text(encoding="utf-8")
    table = sorted(alert_table(), key=lambda alert: alert.name)
    rows = [(alert, text) for alert in table if (text := paragraphs().get(alert.name))]
    names = "".join(f'<li><a href="#{alert.anchor}">{alert.name}</a></li>' for alert, _ in rows)
    parts = "\n".join(_part(alert, text) for alert, text in rows)
    whole = frame.replace("<!-- names -->", names).replace("<!-- paragraphs -->", parts)
    return Page(whole.encode(), "html")


def _part(alert: Alert, paragraph: str) -> str:
    text = _CODE.sub(r"<code>\1</code>", escape(paragraph, quote=False))
    return (
        f'<section id="{alert.anchor}"><h2>{alert.name}</h2>'
        f'<p class="soft small">{alert.severity} · {alert.group}</p><p>{text}</p></section>'
    )
