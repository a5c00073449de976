"""The runbook as a page, which every alert links to. The text is public: no key is asked for."""

import re
from functools import cache
from html import escape

from aiohttp import web

from agent.api.http.call import Call
from agent.api.pages import PAGE, as_page
from agent.core.alerts import Alert, alert_table
from agent.metrics.runbook import paragraphs

_CODE = re.compile(r"`([^`]+)`")


async def show_runbook(call: Call) -> web.Response:
    return as_page(_page(), "html")


@cache
def _page() -> bytes:
    frame = (PAGE / "runbook.html").read_text(encoding="utf-8")
    table = sorted(alert_table(), key=lambda alert: alert.name)
    known = [(alert, said) for alert in table if (said := paragraphs().get(alert.name))]
    names = "".join(f'<li><a href="#{one.anchor}">{one.name}</a></li>' for one, _ in known)
    parts = "\n".join(_part(one, said) for one, said in known)
    whole = frame.replace("<!-- names -->", names).replace("<!-- paragraphs -->", parts)
    return whole.encode()


def _part(alert: Alert, said: str) -> str:
    text = _CODE.sub(r"<code>\1</code>", escape(said, quote=False))
    return (
        f'<section id="{alert.anchor}"><h2>{alert.name}</h2>'
        f'<p class="soft small">{alert.severity} · {alert.group}</p><p>{text}</p></section>'
    )
