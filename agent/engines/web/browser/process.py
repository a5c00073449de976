"""One browser process: started without blocking, watched by its descriptor, ended as a whole."""

import asyncio
import fcntl
import logging
import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.clock import boot_now
from agent.engines.base import in_path
from agent.engines.web.browser.connection import DebuggerConnection
from agent.engines.web.rules import CHROMIUM, SHELL
from agent.errors import ConfigError, EngineError, cause_of

log = logging.getLogger(__name__)

# Which browser, and with which arguments: the leanest ones that keep its sandbox.

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
"""Browsers' own programs: the distributions' wrapper scripts do not run in a hardened unit."""

PACKAGES = {SHELL: "chromium-headless-shell", CHROMIUM: "chromium"}

_OFF = (
    "IsolateOrigins,site-per-process,SpareRendererForSitePerProcess,BackForwardCache,Translate,"
    "MediaRouter,OptimizationHints,DialMediaRouteProvider,CertificateTransparencyComponentUpdater,"
    # Else the browser reports a script's pieces only when all are there, and no progress shows.
    "BackgroundResourceFetch"
)

_OFF_ON_LOOPBACK = ",LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets"
"""A pinned page comes from nowhere, and from there loopback would be out of reach."""

_LEAN = (
    *("--disable-gpu", "--in-process-gpu", "--renderer-process-limit=1", "--disable-extensions"),
    *("--disable-component-update", "--disable-background-networking", "--disable-default-apps"),
    *("--disable-sync", "--disable-breakpad", "--disable-crash-reporter", "--disable-hang-monitor"),
    *("--disable-client-side-phishing-detection", "--disable-prompt-on-repost", "--mute-audio"),
    *("--no-first-run", "--no-default-browser-check", "--hide-scrollbars"),
    # Or 12 MB more for pictures that are not shown.
    "--disable-software-rasterizer",
    # A hidden page must keep its timers, or its connection dies.
    *("--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows"),
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
    """True for a browser with a window, for a person at a desk."""


def find_browser(kind: str, named: str = "") -> Program:
    """Find the browser. `named`: the machine's WA_BROWSER; ConfigError says what to install."""
    if named:
        path = Path(named)
        if not path.is_absolute() or not path.is_file():
            why = f"cannot find the browser {named!r:.200} that WA_BROWSER names"
            raise _missing(why, "WA_BROWSER")
        return Program("headless-shell" if "headless" in path.name else "chromium", path)
    for path in map(Path, BINARIES[kind]):
        if path.is_file():
            return Program(kind, path)
    raise _missing(
        f"cannot find a {kind} browser in {', '.join(BINARIES[kind])}; install it:"
        f" apt-get install {PACKAGES[kind]}  (or name another one in WA_BROWSER)"
    )


def find_visible_browser(named: str = "") -> Program:
    """Find the named browser, else the first one; ConfigError says what to install."""
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    usual = (*BINARIES[CHROMIUM], *names)
    for name in (named, str(Path(named).absolute())) if named else usual:
        if (path := in_path(name)) is not None:
            return Program(CHROMIUM, Path(path).absolute(), visible=True)
    raise _missing(
        f"cannot find {named or 'Chromium or Chrome'}; install it: sudo apt install chromium"
        " (Debian), sudo dnf install chromium (Fedora), sudo pacman -S chromium (Arch),"
        " https://www.google.com/chrome/ (Ubuntu: its snap cannot be used); or name it: --browser"
        " PROGRAM"
    )


def _missing(why: str, field: str = "browser") -> ConfigError:
    return ConfigError(why, field=field, code="browser_missing")


def command_line(
    program: Program, profile: Path, version: str, *, proxy: str = "", loopback: bool = False
) -> list[str]:
    """Return the command line of a browser that ends with the process that starts it."""
    line = [find_setpriv(), "--pdeathsig", "KILL", str(program.path)]
    if program.visible:
        line += ["--window-size=1100,800", "--ozone-platform-hint=auto"]
    else:
        line.append("--headless" if program.kind == "headless-shell" else "--headless=new")
        # Each pixel is kept twice, for a picture that is not shown.
        line.append("--window-size=800,600")
    line += ["--remote-debugging-pipe", f"--user-data-dir={profile}", *_LEAN]
    line.append(f"--disable-features={_OFF}{_OFF_ON_LOOPBACK if loopback else ''}")
    line.append("--enable-features=NetworkServiceInProcess2")
    if os.geteuid():
        # It would be a tenth of the browser's memory, for processes that this one never starts.
        line.append("--no-unsandboxed-zygote")
    else:
        # The zygote is what puts renderers behind the sandbox: without the one, none of both.
        line += ["--no-sandbox", "--no-zygote"]
    if agent := user_agent(version):
        line.append(f"--user-agent={agent}")
    if proxy:
        line.append(f"--proxy-server={proxy}")
    return [*line, "about:blank"]


def find_setpriv() -> str:
    """Find setpriv, which ends a browser together with the process that started it."""
    setpriv = in_path("setpriv")
    if setpriv is None:
        why = "cannot start a browser: setpriv is missing; install it: apt-get install util-linux"
        raise ConfigError(why, code="setpriv_missing")
    return setpriv


def user_agent(version: str) -> str:
    """Return the user agent of a person's browser of that version (`Chromium 156.0.8078.79` or the
    like)."""
    numbers = re.search(r"(\d+)\.\d+\.\d+\.\d+", version)
    if numbers is None:
        return ""
    return (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
        f" Chrome/{numbers[1]}.0.0.0 Safari/537.36"
    )


def user_agent_metadata(version: str) -> dict[str, object]:
    """Return the user agent in the newer words of client hints."""
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


START = 20.0
"""Seconds until a new browser must answer."""
GONE = 2.0
"""Seconds that the rest of a browser's tree has to go, once it has ended."""
_TAIL = 4000


class Browser:
    """A running browser and the connection to it. It never outlives this process."""

    def __init__(self, pid: int, version: str, debugger: DebuggerConnection, errors: int) -> None:
        self.pid = pid
        self.version = version
        self.debugger = debugger
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        """Exit status of the browser, negative for a signal."""
        self._watch = os.pidfd_open(pid)
        self._said = b""
        loop.add_reader(self._watch, self._reap)
        loop.add_reader(errors, self._hear, errors)

    @classmethod
    async def start(
        cls, program: Program, profile: Path, *, proxy: str = "", loopback: bool = False
    ) -> "Browser":
        """Start a browser; EngineError `browser_failed` has its last words."""
        version = await asyncio.to_thread(version_of, program)
        line = command_line(program, profile, version, proxy=proxy, loopback=loopback)
        return await cls.run(line, version, visible=program.visible)

    @classmethod
    async def run(cls, line: list[str], version: str, *, visible: bool = False) -> "Browser":
        """Start exactly this command line."""
        pipes = _Pipes()
        debugger = await DebuggerConnection.open(pipes.answers, pipes.calls)
        try:
            pid = pipes.spawn(line, _environment(visible=visible))
        except OSError as error:
            debugger.close()
            os.close(pipes.errors)
            why = f"cannot start {line[0]}: {error.strerror}"
            raise EngineError(why, code="browser_failed") from error
        browser = cls(pid, version, debugger, pipes.errors)
        try:
            await debugger.call("Browser.getVersion", within=START)
        except EngineError as error:
            await browser.end()
            words = browser.last_words() or str(error)
            walled = "No usable sandbox" not in words
            raise EngineError(
                f"cannot start the browser: {words}",
                code="browser_failed" if walled else "sandbox_not_possible",
            ) from error
        except BaseException:
            await browser.end()
            raise
        return browser

    @property
    def alive(self) -> bool:
        return not self.ended.done() and self.debugger.alive

    def last_words(self) -> str:
        """Return the end of the browser's standard error."""
        lines = self._said.decode(errors="replace").splitlines()
        # The browser's log without the page's lines; all lines only if there is no log.
        own = [line for line in lines if re.match(r"\[\d", line)]
        chosen = [line for line in own if ":CONSOLE" not in line] if own else lines
        return " | ".join(line.strip() for line in chosen[-5:] if line.strip())[:1000]

    async def close(self, within: float = 10.0) -> bool:
        """End the browser in order, so that its profile is whole; True if it did so by itself."""
        with suppress(EngineError):
            await self.debugger.call("Browser.close", within=within)
        await asyncio.wait({self.ended}, timeout=within)
        if not self.ended.done():
            log.warning("the browser did not close in %g s: the worker kills it", within)
            await self.end()
            return False
        self.debugger.close()
        if status := self.ended.result():
            log.info("the browser died while it ended (status %d)", status)
        return status == 0

    async def end(self) -> None:
        """End the browser's whole tree at once."""
        if not self.ended.done():
            # The pid cannot belong to another process: we have not waited for it yet.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        await asyncio.wait({self.ended}, timeout=5)
        self.debugger.close()

    def _hear(self, fd: int) -> None:
        text = b""
        with suppress(OSError):
            text = os.read(fd, 65536)
        if not text:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
            return
        self._said = (self._said + text)[-_TAIL:]

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watch)
        os.close(self._watch)
        # The rest of its tree, before another process can get its number.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            code = 255
        self._leave(code, boot_now() + GONE)

    def _leave(self, code: int, deadline: float) -> None:
        """The next browser that finds a database of the profile locked begins an empty one."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, 0)
            if boot_now() < deadline:
                asyncio.get_running_loop().call_later(0.01, self._leave, code, deadline)
                return
        if not self.ended.done():
            self.ended.set_result(code)
        self.debugger.close()


class _Pipes:
    """Pipes: the browser reads calls from its descriptor 3 and writes answers to 4."""

    def __init__(self) -> None:
        # Numbers above those that the child uses, so that none is overwritten before its copy.
        self._child_calls, self.calls = _pipe()
        self.answers, self._child_answers = _pipe()
        self.errors, self._child_errors = _pipe()
        os.set_blocking(self.errors, False)

    def spawn(self, line: list[str], env: dict[str, str]) -> int:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, self._child_errors, 2),
            (os.POSIX_SPAWN_DUP2, self._child_calls, 3),
            (os.POSIX_SPAWN_DUP2, self._child_answers, 4),
        ]
        try:
            # posix_spawn neither copies this process's memory nor runs Python in the child.
            return os.posix_spawn(
                line[0],
                line,
                env,
                file_actions=actions,
                # A group of its own in the worker's session: by that the process host finds what
                # outlives the worker, for a browser writes over its environment.
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores these two
            )
        finally:
            for fd in (self._child_calls, self._child_answers, self._child_errors):
                os.close(fd)


def _pipe() -> tuple[int, int]:
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return ends[0], ends[1]


_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "FONTCONFIG_PATH", "XDG_RUNTIME_DIR")
_DESKTOP = (
    *("DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_SESSION_TYPE", "XDG_CURRENT_DESKTOP"),
    *("DBUS_SESSION_BUS_ADDRESS", "XMODIFIERS", "LC_ALL", "LC_CTYPE"),
)
"""Variables that a window needs besides, and a person's authenticator."""


def _environment(*, visible: bool = False) -> dict[str, str]:
    """Return the browser's environment: no bus, no notify socket, no settings of ours."""
    names = (*_KEPT, *_DESKTOP) if visible else _KEPT
    return {name: os.environ[name] for name in names if name in os.environ}


def version_of(program: Program) -> str:
    try:
        line, env = [str(program.path), "--version"], _environment()
        return subprocess.run(
            line, capture_output=True, text=True, timeout=START, check=True, env=env
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        why = f"cannot start {program.path}: {cause_of(error)}"
        raise EngineError(why, code="browser_failed") from error
