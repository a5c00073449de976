"""`pair`, alone on a desktop: one pairing by the web engine with a visible window, until WhatsApp
is connected and synced, and its session as a file. The person links with a phone and a passkey in
that window. No credential passes through here."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.cli import client, command
from agent.core import reasons, words
from agent.engines.base import KeepsNothing
from agent.engines.web import fetch, rules
from agent.engines.web.browser import page, process
from agent.engines.web.engine import WebEngine
from agent.engines.web.session import Needs
from agent.errors import ConfigError, EngineError, Refused, TryLater
from agent.vault.archives import pack_session, scratch

_EXAMPLE = """--out shop.tar.gz
  age -p -o shop.tar.gz.age shop.tar.gz && shred -u shop.tar.gz    # encrypted, on the way
  age -d -o shop.tar.gz shop.tar.gz.age                            # on the server
  wa-agent import shop.tar.gz --enable"""
_WARNING = (
    "this file is the pairing: who has it has the account. Encrypt it on the way (wa-agent pair"
    " --help shows how), import it on one server only, and remove it here: two that run one session"
    " throw each other out"
)


def add(commands: command.Commands) -> None:
    commands.add("pair", pair, _EXAMPLE, browser=os.environ.get("WA_BROWSER", ""), within=900.0)


def pair(options: command.Options) -> int:
    """Link an account here, in a browser window, and write its session into a file.

    --out FILE!: the archive to write; up to its first dot its name is the session's id
    --force: replace the file
    --page URL: address of the page; default: WhatsApp Web
    --browser PROGRAM: path of Chromium or Chrome; default: searched for
    --within SECONDS: time for linking
    """
    out = Path(options.out)
    id = words.parse_instance_id(out.name.partition(".")[0])
    client.check_target(out, force=options.force)
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        why = "neither DISPLAY nor WAYLAND_DISPLAY is set; run this in a desktop's terminal"
        raise ConfigError(f"cannot open a window: {why}", code="no_display")
    # A closed terminal ends it in order too: nothing of the pairing stays behind.
    for end in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("WA_CACHE_PATH") or f"{home}/wa-agent")
    program = process.find_visible_browser(options.browser)
    url = options.page or rules.WHATSAPP
    linked = "if the phone linked it, "
    # The profile goes in any case: a copy that is left here could run beside the server's.
    try:
        with scratch() as folder:
            (session := folder / "session").mkdir(mode=0o700)
            paired = asyncio.run(link(session, program, cache, url=url, within=options.within))
            linked = ""
            command.say(f"linked as {paired['account']}; the window is closed")
            with client.whole_file(out) as file:
                packed = pack_session(session, id, "web", file, wall=time.time(), **paired)
    except BaseException:
        gone = "the archive was not written, and the profile is removed"
        command.say(f"{gone}: {linked}remove the linked device on the phone (Linked devices)")
        raise
    command.say(_WARNING)
    return options.print({"file": str(out), "sha256": packed.sha256}, f"{packed.sha256}  {out}")


# In the window

Status = words.ConnectionStatus
LOOK_EVERY = 2.0

_WORDS = {
    Status.INITIALIZING: "WhatsApp Web loads",
    Status.QR_REQUIRED: "link the phone with the code in the window (on the phone: Linked"
    " devices, Link a device)",
    Status.LOADING: "linked; WhatsApp Web syncs",
    Status.RECONNECTING: "the connection was lost; WhatsApp Web connects again",
    Status.CONNECTED: "connected",
}
_REASONS = {
    words.PASSKEY_REQUIRED: "WhatsApp asks for your passkey: answer in the window",
    "page_crashed": "the window was closed before WhatsApp Web was connected",
}
_CODES = {"page_crashed": "window_closed", "": "not_connected"}


class _Claims(KeepsNothing):
    """The claims of the engine, one after another."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[words.Claim | BaseException] = asyncio.Queue()
        self.claim = self.crashed = self.queue.put_nowait

    def happened(self, happening: words.Happening) -> None: ...

    def progress(self) -> None: ...


async def link(
    session: Path, program: process.Program, cache: Path, *, url: str, within: float
) -> dict[str, Any]:
    """Fill the empty folder with a session that is connected, and close it; its account, and
    `needs_passkey`, True if WhatsApp asked for one. `cache`: folder of the bundle; `within`:
    seconds for the person."""
    await asyncio.to_thread(fetch.fetch_bundle, cache)
    process.find_setpriv()
    # No page is kept beside the profile, and a window that was closed is not opened again.
    settings = rules.WebSettings("chromium", url, rules.KNOWN_GOOD, browser_starts=0)
    script = page.page_script(url, fetch.page_config(""), fetch.read_bundle(cache), person=True)
    needs, claims = Needs(program, script), _Claims()
    engine = WebEngine(session, settings, lambda: needs, claims)
    try:
        async with asyncio.timeout(within):
            paired = await _until_connected(engine, claims)
    except TimeoutError as error:
        raise TryLater(f"cannot pair: not linked within {within:g} s", code="not_linked") from error
    finally:
        await engine.prepare_stop()
        await engine.save()
        await engine.close()
    if lost := await asyncio.to_thread(rules.lost_store, session):
        raise EngineError(f"cannot pair: the browser closed, and {lost}", code="not_good")
    return paired


async def _until_connected(engine: WebEngine, claims: _Claims) -> dict[str, Any]:
    await engine.connect()
    last_sentence, needs_passkey = "", False
    while True:
        try:
            async with asyncio.timeout(LOOK_EVERY):
                claim = await claims.queue.get()
        except TimeoutError:
            with suppress(EngineError):  # a page that loads answers late
                await engine.probe()
            continue
        if isinstance(claim, BaseException):
            raise EngineError(f"cannot pair: {claim}") from claim
        sentence = _REASONS.get(claim.reason) or _WORDS.get(claim.status, "it is not connected")
        if claim.reason and claim.reason not in _REASONS:
            sentence = reasons.reason_of(claim.reason).in_full("ID")
        if claim.status in (Status.DISCONNECTED, Status.AUTH_FAILURE):
            why = f" ({claim.raw})" if claim.raw else ""
            code = _CODES.get(claim.reason, claim.reason)
            raise Refused(f"cannot pair: {sentence}{why}", code=code)
        if claim.reason == "qr_idle":
            await engine.connect()
        if sentence != last_sentence:
            command.say(sentence)
            last_sentence = sentence
        needs_passkey |= claim.reason == words.PASSKEY_REQUIRED
        if claim.status is Status.CONNECTED and claim.paired:
            return {"account": claim.account, "needs_passkey": needs_passkey}
