"""Which browser, and with which arguments: the leanest ones that keep its sandbox."""

import re
from dataclasses import dataclass
from pathlib import Path

from agent.engines.surroundings import in_path
from agent.engines.web.settings import CHROMIUM, SHELL
from agent.errors import ConfigError

BINARIES = {
    SHELL: (
        "/usr/lib/chromium/chromium-headless-shell",
        "/usr/lib64/chromium-browser/headless_shell",
        "/usr/lib/chromium-browser/headless_shell",
    ),
    CHROMIUM: (
        "/usr/lib/chromium/chromium",
        "/usr/lib64/chromium-browser/chromium-browser",
        "/opt/google/chrome/chrome",
    ),
}
"""The programs themselves: the distributions' wrapper scripts do not run in a hardened unit."""

PACKAGES = {SHELL: "chromium-headless-shell", CHROMIUM: "chromium"}

_OFF = (
    "IsolateOrigins",
    "site-per-process",
    "SpareRendererForSitePerProcess",
    "BackForwardCache",
    "Translate",
    "MediaRouter",
    "OptimizationHints",
    "DialMediaRouteProvider",
    "CertificateTransparencyComponentUpdater",
    # Else the browser reports a script's pieces only when all are there, and no progress shows.
    "BackgroundResourceFetch",
)

_OFF_ON_LOOPBACK = ("LocalNetworkAccessChecks", "LocalNetworkAccessChecksWebSockets")
"""A pinned page comes from nowhere, and from there loopback would be out of reach."""

_LEAN = (
    "--disable-gpu",
    "--in-process-gpu",
    # Or 12 MB more for pictures that are not shown.
    "--disable-software-rasterizer",
    "--renderer-process-limit=1",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-client-side-phishing-detection",
    "--disable-hang-monitor",
    "--disable-prompt-on-repost",
    "--mute-audio",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    # A hidden page must keep its timers, or its connection dies.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    # /dev/shm is 64 MB in many containers.
    "--disable-dev-shm-usage",
    # The profile must open on another machine too, so no desktop's keyring.
    "--password-store=basic",
    "--disable-blink-features=AutomationControlled",
    # Local storage reaches the disk within a second, and not after 5 s to several minutes: a
    # browser that is killed loses no more than that, and pairing.py waits for it after a scan.
    "--enable-aggressive-domstorage-flushing",
)


@dataclass(frozen=True, slots=True)
class Program:
    kind: str
    path: Path
    visible: bool = False
    """With a window, for a person at a desk."""


def find_browser(kind: str, named: str = "") -> Program:
    """`named` is the machine's own choice (WA_BROWSER); ConfigError says what to install."""
    if named:
        path = Path(named)
        if not path.is_absolute() or not path.is_file():
            raise ConfigError(
                f"cannot find the browser {named!r:.200} that WA_BROWSER names",
                field="WA_BROWSER",
                code="browser_missing",
            )
        return Program("headless-shell" if "headless" in path.name else "chromium", path)
    for path in map(Path, BINARIES[kind]):
        if path.is_file():
            return Program(kind, path)
    package = PACKAGES[kind]
    raise ConfigError(
        f"cannot find a {kind} browser in {', '.join(BINARIES[kind])}; install it:"
        f" apt-get install {package}  (or name another one in WA_BROWSER)",
        field="browser",
        code="browser_missing",
    )


def command_line(
    program: Program,
    profile: Path,
    *,
    user_agent: str,
    sandboxed: bool,
    proxy: str = "",
    loopback: bool = False,
) -> list[str]:
    """The browser's whole command line; it ends with the process that starts it."""
    line = [find_setpriv(), "--pdeathsig", "KILL", str(program.path)]
    if program.visible:
        line += ["--window-size=1100,800", "--ozone-platform-hint=auto"]
    else:
        line.append("--headless" if program.kind == "headless-shell" else "--headless=new")
        # Each pixel is kept twice, for a picture that is not shown.
        line.append("--window-size=800,600")
    line += ["--remote-debugging-pipe", f"--user-data-dir={profile}", *_LEAN]
    off = (*_OFF, *_OFF_ON_LOOPBACK) if loopback else _OFF
    line.append(f"--disable-features={','.join(off)}")
    line.append("--enable-features=NetworkServiceInProcess2")
    if sandboxed:
        # It would be a tenth of the browser's memory, for processes that this one never starts.
        line.append("--no-unsandboxed-zygote")
    else:
        # The zygote is what puts renderers behind the sandbox: without the one, none of both.
        line += ["--no-sandbox", "--no-zygote"]
    if user_agent:
        line.append(f"--user-agent={user_agent}")
    if proxy:
        line.append(f"--proxy-server={proxy}")
    return [*line, "about:blank"]


def find_setpriv() -> str:
    """What ends a browser together with the process that started it."""
    setpriv = in_path("setpriv")
    if setpriv is None:
        raise ConfigError(
            "cannot start a browser: setpriv is missing; install it: apt-get install util-linux",
            code="setpriv_missing",
        )
    return setpriv


def user_agent(version: str) -> str:
    """What a person's browser of that version says, from `Chromium 156.0.8078.79` or the like."""
    numbers = re.search(r"(\d+)\.\d+\.\d+\.\d+", version)
    if numbers is None:
        return ""
    return (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
        f" Chrome/{numbers[1]}.0.0.0 Safari/537.36"
    )


def user_agent_metadata(version: str) -> dict[str, object]:
    """The same in the newer words of client hints."""
    numbers = re.search(r"(\d+)\.\d+\.\d+\.\d+", version)
    major, full = (numbers[1], numbers[0]) if numbers else ("", "")
    brands = [("Chromium", major), ("Google Chrome", major), ("Not_A Brand", "24")]
    return {
        "brands": [{"brand": name, "version": number} for name, number in brands],
        "fullVersion": full,
        "platform": "Linux",
        "platformVersion": "",
        "architecture": "x86",
        "model": "",
        "mobile": False,
    }
