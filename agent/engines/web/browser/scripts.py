"""The scripts that run in the page: observer and bundle first, and those that hide its codes."""

import json
from pathlib import Path

from agent.engines.settings import origin_of


def page_script(
    url: str,
    config: str,
    bundle: str,
    *,
    person: bool = False,
    kept_from: float | None = None,
) -> str:
    """What runs in each document first: only in WhatsApp's own page, never in frames. `person`: a
    person sits at the window, and their browser answers the page's call for a passkey. `kept_from`:
    since when messages are made records; None: never."""
    observer = Path(__file__).with_name("observer.js").read_text()
    records, listen = "", ""
    if kept_from is not None:
        records = Path(__file__).with_name("records.js").read_text()
        media = Path(__file__).with_name("media.js").read_text()
        records = f"const keptFrom = {json.dumps(kept_from)};\n{records}\n{media}"
        listen = "__waRecords.watch();\n"
    where = json.dumps(origin_of(url))
    return (
        f"(() => {{ if (window !== window.top || location.origin !== {where}) return;\n"
        f"window.WPPConfig = {config};\n"
        f"const hasPerson = {json.dumps(person)};\n{observer}\n{records}\n"
        f"try {{\n{bundle}\n}} catch (error) {{ __waAgent.failed(error) }}\n"
        f"__waAgent.watch();\n{listen}}})()"
    )


# A style sheet made here is not subject to the page's rules on inline styles.
HIDE_CODES = """new Promise((done) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(
    'canvas, [data-ref], [data-ref] *, [data-link-code], [data-link-code] *,' +
    '[aria-details*="link-device"], [aria-details*="link-device"] *' +
    '{ visibility: hidden !important }');
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  globalThis.__waAgentSheet = sheet;
  requestAnimationFrame(() => requestAnimationFrame(() => done(true)));
})"""

SHOW_CODES = """document.adoptedStyleSheets =
  document.adoptedStyleSheets.filter((each) => each !== globalThis.__waAgentSheet);
  delete globalThis.__waAgentSheet; true"""
