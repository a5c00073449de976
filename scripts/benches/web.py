"""One session in a browser: the web engine with its worker, beside a browser with the arguments of
whatsapp-web.js; the same page, the same bundle, the same machine, in turns in one run.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from agent.engines.program.process import descendants
from agent.engines.web.browser.page import Page, page_script
from agent.engines.web.browser.process import Browser, find_browser, user_agent, version_of
from agent.engines.web.fetch import fetch_bundle, page_config, read_bundle
from agent.errors import HostError
from scripts.benches.lone_worker import LoneWorker
from scripts.benches.machine import TOP, this_machine
from scripts.benches.processes import pss, spent_in
from scripts.benches.report import OURS, Goal, Report, Row
from tests.standin.web.stand_in import StandIn

THEIRS, FULL = "whatsapp-web.js", "wa-agent, full chromium"
SHARE = 0.4
"""Share of the others' memory that ours may use, the worker included; their Node.js is left out."""
SPARE = 65534
"""The user that measures in root's place: a browser of root has no sandbox."""
# whatsapp-web.js 1.34.7 adds two arguments to those of puppeteer 24.38.0 (ChromeLauncher.js).
PEER = [
    "--allow-pre-commit-input",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-crash-reporter",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-hang-monitor",
    "--disable-infobars",
    "--disable-ipc-flooding-protection",
    "--disable-popup-blocking",
    "--disable-prompt-on-repost",
    "--disable-renderer-backgrounding",
    "--disable-search-engine-choice-screen",
    "--disable-sync",
    "--enable-automation",
    "--export-tagged-pdf",
    "--force-color-profile=srgb",
    "--generate-pdf-document-outline",
    "--metrics-recording-only",
    "--no-first-run",
    "--password-store=basic",
    "--use-mock-keychain",
    "--disable-features=Translate,AcceptCHFrame,MediaRouter,OptimizationHints,RenderDocument,PartitionAllocSchedulerLoopQuarantineTaskControlledPurge,ProcessPerSiteUpToMainFrameThreshold,IsolateSandboxedIframes",
    "--enable-features=PdfOopif",
    "--headless=new",
    "--hide-scrollbars",
    "--mute-audio",
    "--disable-extensions",
    "--disable-blink-features=AutomationControlled",
    "--remote-debugging-pipe",
]
"""The arguments with which whatsapp-web.js starts its browser."""
_AS_SPARE = (f"--reuid={SPARE}", f"--regid={SPARE}", "--clear-groups", "--no-new-privs", "--")


@dataclass(frozen=True, slots=True)
class Times:
    rounds: int = 3
    settle: float = 10.0
    idle: float = 20.0


class Theirs:
    """The browser alone, as puppeteer would start it, with the bundle in its page."""

    def __init__(self, folder: Path, url: str, cache: Path) -> None:
        self._url, self._name = url, folder.name
        self._profile = folder / "profile"
        self._profile.mkdir(parents=True)
        self._script = page_script(url, page_config(""), read_bundle(cache))
        self._facts: dict[str, object] = {}
        self._told = asyncio.Event()
        self._browser: Browser | None = None

    @property
    def pid(self) -> int:
        return self._browser.pid if self._browser else 0

    async def start(self) -> None:
        program = find_browser("chromium")
        found = version_of(program)
        line = [*_unprivileged(), str(program.path), *PEER, f"--user-data-dir={self._profile}"]
        line += [f"--user-agent={user_agent(found)}", "about:blank"]
        self._facts = {}
        self._browser = await Browser.run(line, found)
        page = await Page.open(self._browser.debugger, self._script, found, self._take)
        await page.navigate(f"{self._url}?name={self._name}", within=30)

    def _take(self, _word: str, told: object) -> None:
        if isinstance(told, dict) and isinstance(told.get("s"), dict):
            self._facts = told["s"]
            self._told.set()

    async def until_code(self) -> None:
        await self._until(mode="QR", ready=True)

    async def until_connected(self) -> None:
        await self._until(mode="MAIN", auth=True)

    async def _until(self, **wanted: object) -> None:
        async with asyncio.timeout(60):
            while not wanted.items() <= self._facts.items():
                self._told.clear()
                await self._told.wait()

    async def stop(self) -> None:
        if self._browser is not None:
            await self._browser.close()


def ours(folder: Path, url: str, cache: Path, browser: str) -> LoneWorker:
    settings = {"url": f"{url}?name={folder.name}", "browser": browser}
    return LoneWorker(folder, "web", settings, cache, _unprivileged())


def measure(instances: int, *, quick: bool) -> Report:
    machine = this_machine()
    times = Times(1, 2.0, 5.0) if quick else Times()
    cache = Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache"))
    fetch_bundle(cache)
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(times.rounds):
        # In turns, so that what else the machine does falls on all of them.
        for name in (THEIRS, OURS, FULL):
            print(f"measuring {name} ...", file=sys.stderr)
            for measure_, value in asyncio.run(_round(name, instances, times, cache)).items():
                figures[measure_][name].append(value)
    theirs = statistics.median(figures["memory"][THEIRS])
    rows = [
        *rows_at_rest(instances, figures, Goal(f"{SHARE:g} x {THEIRS}'s", theirs * SHARE)),
        Row("from nothing to a code", "s", figures["code"]),
        Row("from stopped to connected, restored", "s", figures["restore"]),
    ]
    shell, full = (version_of(find_browser(kind)) for kind in ("headless-shell", "chromium"))
    versions = {OURS: f"{version('wa-agent')} with {shell}", FULL: full}
    versions[THEIRS] = f"1.34.7's arguments, puppeteer 24.38.0's, with {full}"
    notes = [
        "Ours is the worker with its browser; theirs is the browser alone, without its Node.js.",
        "The page is the stand-in with the unmodified wa-js bundle; WhatsApp's own page needs more"
        " in each of them.",
        f"All of them ran as uid {os.geteuid() or SPARE}, each browser in its own sandbox.",
    ]
    return Report("web", machine, versions, rows, notes)


def rows_at_rest(
    instances: int, figures: Mapping[str, Mapping[str, list[float]]], memory: Goal
) -> list[Row]:
    what = f"memory of one of {instances}, connected and idle"
    return [
        Row(what, "MiB PSS", figures["memory"], memory),
        Row("processes of one", "", figures["processes"]),
        Row("processor time of one, idle", "s/min", figures["cpu"]),
    ]


async def _round(name: str, count: int, times: Times, cache: Path) -> dict[str, float]:
    stand_in = await StandIn.open(qr_every=300, alive_every=5)
    root = Path(tempfile.mkdtemp(prefix="wa-bench-"))
    give_away(root)
    found: list[Theirs | LoneWorker] = []
    codes = []
    try:
        for number in range(count):
            folder = root / f"i{number}"
            one = _session(name, folder, stand_in.url, cache)
            found.append(one)
            give_away(folder)
            begun = time.perf_counter()
            await one.start()
            await one.until_code()
            codes.append(time.perf_counter() - begun)
            stand_in.scan(f"55119999900{number:02d}", folder.name)
            await one.until_connected()
        await asyncio.sleep(times.settle)
        pids = [pid for each in found for pid in (each.pid, *descendants(each.pid))]
        _must_be_walled(pids)
        spent = await spent_in(pids, times.idle)
        memory = sum(pss(pid) for pid in pids)
        await found[0].stop()
        begun = time.perf_counter()
        await found[0].start()
        await found[0].until_connected()
        restored = time.perf_counter() - begun
    finally:
        for each in found:
            await each.stop()
        await stand_in.close()
        shutil.rmtree(root, ignore_errors=True)
    return {
        "memory": memory / count,
        "processes": len(pids) / count,
        "cpu": spent / count,
        "code": statistics.median(codes),
        "restore": restored,
    }


def _session(name: str, folder: Path, url: str, cache: Path) -> Theirs | LoneWorker:
    if name == THEIRS:
        return Theirs(folder, url, cache)
    return ours(folder, url, cache, "headless-shell" if name == OURS else "chromium")


def _unprivileged() -> list[str]:
    """Return the words before each command line by which all of them keep their sandbox."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise HostError("cannot become another user: install setpriv (apt-get install util-linux)")
    return [setpriv, *_AS_SPARE]


def give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, SPARE, SPARE)


def _must_be_walled(pids: Sequence[int]) -> None:
    """A browser without its sandbox needs less memory, and is not safe to run."""
    for pid in pids:
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            status = Path(f"/proc/{pid}/status").read_text()
            if b"--type=renderer" in line and "Seccomp:\t2" not in status:
                raise HostError("cannot measure: a browser runs without its sandbox")
