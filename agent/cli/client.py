"""Talks to the agent over its Unix socket (or a URL) with the standard library alone: an HTTP
library of the agent's would cost every command a tenth of a second. An archive is streamed from and
to a file, never held whole. And the installation as a check of `doctor` sees it."""

import json
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from agent.errors import AgentUnreachable, InvalidRequest, Refused, WaError, cause_of
from agent.files import INSTALLED_SOCKET, open_plain, replacing, short_path

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from agent.config.config import Config

# Places of the agent and its files, in a checkout or in an installation.


INSTALLED_CONFIG = Path("/etc/wa-agent/agent.toml")
_MAKE_ONE = "make one (wa-agent config init --config FILE), run the agent with it"
NO_CONFIG = f"there is no agent.toml: {_MAKE_ONE}, and give --config FILE"


def checkout() -> Path | None:
    """The checkout that this program runs from; None when it is installed."""
    top = Path(__file__).resolve().parents[2]
    return top if (top / "pyproject.toml").is_file() else None


def socket_candidates(env: Mapping[str, str]) -> list[Path]:
    """The sockets at which the agent may listen, the nearest first."""
    if named := env.get("WA_AGENT_SOCKET"):
        return [Path(named)]
    candidates = []
    with suppress(OSError):  # another process removed the working folder
        here = Path.cwd() / ".state" / "api.sock"
        # Only this user's own: a folder of another user must not catch our commands.
        if here.lstat().st_uid == os.geteuid():
            candidates.append(here)
    if (top := checkout()) is not None:
        candidates.append(top / ".state" / "api.sock")
    return list(dict.fromkeys([*candidates, INSTALLED_SOCKET]))


def config_path(named: str | None, env: Mapping[str, str]) -> Path | None:
    """The file to read: the named one, else the installed one if it exists."""
    if named or env.get("WA_AGENT_CONFIG"):
        return Path(named or env["WA_AGENT_CONFIG"])
    return INSTALLED_CONFIG if checkout() is None and INSTALLED_CONFIG.exists() else None


_HELLO_SECONDS = 3.0
"""An agent that does not answer the first question within this time counts as hanging."""
_LONGEST = 1800.0
"""Seconds without a byte: a large session is copied, checked and packed in that time."""
_HUNG = "it hangs or still starts; run: wa-agent doctor, journalctl -u wa-agent"
_START_IT = "is the agent running? start it with: systemctl start wa-agent (or ./scripts/run)"
CLOSED = "it is for root and the group wa-agent"
_EXITS = {400: 2, 401: 4, 403: 4, 404: 3, 406: 2, 408: 75, 409: 4, 413: 2, 415: 2, 503: 75}


class AgentSaidNo(WaError):
    """The agent's own error, with the exit status that belongs to it."""

    def __init__(self, status: int, body: bytes, asked: str = "") -> None:
        """`asked`: what named the agent's address, told where it refuses the key."""
        error, more = _object(body) or {}, asked if status in (401, 403) else ""
        message = f"{error.get('message', f'the agent answered {status}')}{more}"
        super().__init__(message, field=error.get("field"), code=error.get("error", "internal"))
        self.exit_status = _EXITS.get(status, 1)


def _object(raw: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        parsed = json.loads(raw)
        return parsed if isinstance(parsed, dict) else None
    return None


_LARGEST = 1 << 26
"""Bytes of an answer that are read."""
_URL = re.compile(r"http://(\[[\da-fA-F:.]+\]|[^\s/?#:@\[\]]+)(:\d{1,5})?/?")
Body = Mapping[str, Any] | IO[bytes] | None
"""JSON, or an archive."""


@dataclass(frozen=True, slots=True)
class Client:
    """One agent to ask. Every request has its own connection: commands are short."""

    url: str = ""
    """http://HOST:PORT, or "" for the Unix socket."""
    key: str = ""
    sockets: tuple[Path, ...] = ()
    asked: str = ""
    """For errors: what named `url`, which is asked instead of the socket."""

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self.request("GET", f"{path}?{urlencode(query, doseq=True)}" if query else path)

    def request(self, method: str, path: str, body: Body = None, **headers: str) -> dict[str, Any]:
        with self.exchange(method, path, body, **headers) as response:
            if (answer := _object(response.read(_LARGEST))) is not None:
                return answer
            raise OSError("its answer was cut, or is none; what was asked for may be done")

    @contextmanager
    def exchange(
        self, method: str, path: str, body: Body = None, **headers: str
    ) -> Iterator["HTTPResponse"]:
        """An answer to read from; an error of the agent's raises AgentSaidNo."""
        import http.client  # half of what `version` and `--help` would cost, if it stood above

        sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        raw = json.dumps(body, ensure_ascii=False).encode() if isinstance(body, Mapping) else body
        if not (body is None or isinstance(body, Mapping)):
            size = str(os.fstat(body.fileno()).st_size)
            sent |= {"Content-Type": "application/gzip", "Content-Length": size}
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        if self.url and not _URL.fullmatch(self.url):
            shown = self.url.rpartition("@")[2]
            raise InvalidRequest(f"cannot use the URL {shown!r}: it must be http://HOST:PORT")
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc or "localhost")
        try:
            connection.sock = self._connect()
            try:  # the kernel accepts connections for a process that hangs, too
                connection.request("GET", "/healthz")
                hello = _object(connection.getresponse().read(_LARGEST)) or {}
            except TimeoutError:
                words = f"the agent does not answer within {_HELLO_SECONDS:g} s{self.asked}"
                raise AgentUnreachable(f"{words}: {_HUNG}") from None
            if hello.keys().isdisjoint(("alive", "request")):  # which each error of an agent has
                raise AgentUnreachable(f"what answers at {self.url or 'it'} is no wa-agent")
            connection.sock = connection.sock or self._connect()
            connection.sock.settimeout(_LONGEST)
            try:
                # An agent that refuses does so before it has read all: its answer counts.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, path, raw, sent)
            except ValueError:  # which quotes the header
                named = "a key (WA_AGENT_KEY, --key or --idempotency-key)"
                words = f"{named} has a character that no header of HTTP can have"
                raise InvalidRequest(f"cannot ask the agent: {words}") from None
            if (response := connection.getresponse()).status >= 400:
                raise AgentSaidNo(response.status, response.read(_LARGEST), self.asked)
            kind = response.headers.get_content_type()
            if not kind.startswith(sent["Accept"].strip("*/")):
                raise WaError(f"cannot read the answer: it is {kind}, not {sent['Accept']}")
            yield response
        except (OSError, http.client.HTTPException) as error:
            cause = f"{cause_of(error)}{self.asked}; {_START_IT}"
            raise AgentUnreachable(f"cannot finish talking to the agent: {cause}") from error
        finally:
            connection.close()

    def instances(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Every instance that fits the query, page by page."""
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            page = self.get("/api/instances", **query, after=page["next"], limit=1000)
            yield from page["instances"]

    def _connect(self) -> socket.socket:
        problems, cure = list[str](), _START_IT
        if self.url:
            parts = urlsplit(self.url)
            try:
                return socket.create_connection((parts.hostname, parts.port or 80), _HELLO_SECONDS)
            except (OSError, ValueError) as error:
                problems.append(f"{parts.netloc}: {cause_of(error)}")
        for path in () if self.url else self.sockets or socket_candidates(os.environ):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(_HELLO_SECONDS)
            try:
                with short_path(path) as name:
                    sock.connect(name)
                return sock
            except OSError as error:
                sock.close()
                problems.append(f"{path}: {error.strerror or error}")
                if isinstance(error, PermissionError):
                    cure = CLOSED
        words = f"cannot reach the agent ({'; '.join(problems)}){self.asked}; {cure}"
        raise AgentUnreachable(words)


# Files that come and go


def write_checked(response: "HTTPResponse", target: Path, announced: str) -> tuple[int, str]:
    """Size and SHA-256 of what arrived, which is the one in the header `announced`."""
    import hashlib  # only where a file arrives

    digest = hashlib.sha256()
    with whole_file(target) as file:
        while piece := response.read(1 << 18):
            file.write(piece)
            digest.update(piece)
        if digest.hexdigest() != response.headers.get(announced):
            raise WaError(f"cannot write {target}: it did not arrive whole; try again")
        return file.tell(), digest.hexdigest()


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write into, for its owner alone: it appears when it is written whole."""
    was_there = os.path.lexists(target)
    try:
        with replacing(target) as file:
            yield file
            if not was_there:
                file.flush()  # a full disk shows here, before the place is taken
                target.touch(0o600, exist_ok=False)  # of several commands at once, one takes it
    except OSError as error:
        raise WaError(f"cannot write {target}: {error.strerror or error}") from error


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a file that cannot be written before the agent is asked."""
    why = ""
    if str(target) == "-":
        why = "it is no file; ./- is one"
    elif target.is_dir():
        why = "it is a folder"
    elif os.path.lexists(target) and not stat.S_ISREG(target.lstat().st_mode):
        # Replaced by a file, it would be gone for all who use it.
        why = "it is a link, a device, a FIFO or a socket"
    elif target.exists() and not force:
        why = "it exists; --force replaces it"
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        why = f"{target.parent} is {'not writable' if target.parent.is_dir() else 'no folder'}"
    if why:
        raise Refused(f"cannot write {target}: {why}", field="file")


def open_source(path: Path, field: str) -> IO[bytes]:
    """A pipe or a device would be waited for, or never end; an address may hold a password."""
    scheme, is_address, _ = str(path).partition(":/")
    shown = f"{scheme}://" if is_address else path
    try:
        file = open_plain(path, links=True)
        os.pread(file.fileno(), 1, 0)  # one of a broken disk says so here, under its name
        return file
    except OSError as error:
        why = f"cannot read {shown}: {cause_of(error)}"
        raise InvalidRequest(why, field=field, code="unreadable") from error


# Findings of the checks of `doctor`


@dataclass(frozen=True, slots=True)
class Finding:
    level: str
    """ok; note: it works, but look at it; wrong."""
    sentence: str
    advice: str = ""
    """"" with a note or a fault: the check's own cure."""
    check: str = ""
    """Name of the check; "" = the name of the one that is run."""


ok, note, wrong = partial(Finding, "ok"), partial(Finding, "note"), partial(Finding, "wrong")


@dataclass(frozen=True, slots=True)
class Installation:
    """The settings and the agent that the checks look at."""

    config: "Config"
    client: Client
    file: Path | None
    """The file of the settings; None: there is none."""

    @property
    def state(self) -> Path:
        return self.config.agent.state_path

    @property
    def installed(self) -> bool:
        """True where scripts/install or the package put the program."""
        from agent.config.config import INSTALLED_STATE  # which most commands start without

        return self.state == INSTALLED_STATE
