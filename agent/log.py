"""Log lines: to stderr as SPEC's line or JSON, to the journal with fields where it listens.

The output of a worker that the process host started is worker.log, which its worker keeps bounded
while it writes, so without an agent, too.

Writing a line never blocks, never raises and never shows a secret. Standard library only: workers
log through here too.
"""

import codecs
import json
import logging
import os
import select
import socket
import stat
import struct
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from agent import errors, redaction
from agent.core.words import Category

# Loaded now: a process out of descriptors cannot load it when it has something to say.
codecs.lookup("unicode_escape")

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}
LONGEST = 16_384
"""Characters of one message; the rest is cut."""
WORKER_LOG = "worker.log"
LOG_LIMIT = 1 << 20

log = logging.getLogger("agent")
"""Logger of the agent's lines about itself, or with `about` about one session."""
debug, info, warning, error, exception = log.debug, log.info, log.warning, log.error, log.exception
"""Functions for a module that has this one as `log`."""


def clean(text: str) -> str:
    """Return one line without control characters: no terminal and no log reader is fooled."""
    if text.isprintable():
        return text
    shown = (it if it.isprintable() else str(it.encode("unicode_escape"), "ascii") for it in text)
    return "".join(shown)


@contextmanager
def going_on(
    cannot: str = "the agent goes on without it", told: dict[str, str] | None = None
) -> Iterator[None]:
    """Around what no session needs to run: its failure is logged, and the agent goes on. `told`:
    the causes that were logged of what is tried each second, which are not logged again."""
    cause = ""
    try:
        yield
    except (errors.WaError, OSError) as error:
        cause = str(error).removeprefix(f"[Errno {getattr(error, 'errno', None)}] ")
        if told is None or told.get(cannot) != cause:
            log.error("%s: %s", cannot, cause)
    if told is not None:
        told[cannot] = cause


def bound(
    category: Category = Category.SYSTEM, instance: str | None = None, name: str = "agent"
) -> logging.LoggerAdapter[logging.Logger]:
    """Return a logger that knows its category and, if there is one, its instance."""
    return logging.LoggerAdapter(logging.getLogger(name), about(instance or "", category))


def about(instance: str, category: Category = Category.SESSION) -> dict[str, str]:
    """Return the `extra` of a line about one instance, by which its lines are found."""
    return {"wa_category": str(category), "wa_instance": instance}


def set_up_logging(
    level: str, form: str = "text", *, env: Mapping[str, str] = os.environ, fd: int = 2
) -> None:
    """Make the root logger write to this process's stderr, or to the journal behind it."""
    own, folder = False, Path(env.get("RUNTIME_DIRECTORY") or "/")
    with suppress(OSError):  # else it is the journal, or a terminal
        own = os.path.samestat((folder / WORKER_LOG).lstat(), os.fstat(fd))
    to_journal = journal_listens(env, fd)
    writer = LineWriter(fd, form, to_journal=to_journal, folder=folder if own else None)
    logging.basicConfig(force=True, handlers=[writer])
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    root, wanted = logging.getLogger(), LEVELS[level]
    others = [handler.level for handler in root.handlers if not isinstance(handler, LineWriter)]
    for handler in root.handlers:
        if isinstance(handler, LineWriter):
            handler.setLevel(wanted)
    root.setLevel(min([wanted, *filter(None, others)]))
    # These tell each request and each loop start; their warnings are worth a line, but for the
    # last one's, which repeat a client's words.
    for chatty, least in (("aiohttp.access", 30), ("asyncio", 30), ("aiohttp.websocket", 40)):
        logging.getLogger(chatty).setLevel(max(LEVELS[level], least))


def journal_listens(env: Mapping[str, str], fd: int = 2) -> bool:
    """True when stderr is the journal's stream, or when it should be but journald had none left.

    Beyond about 4096 streams journald connects no more; the service manager then leaves
    /dev/null, and the native socket is the only way to be heard.
    """
    try:
        own = os.fstat(fd)
        if env.get("JOURNAL_STREAM"):
            device, _, inode = env["JOURNAL_STREAM"].partition(":")
            return (own.st_dev, own.st_ino) == (int(device), int(inode))
        null = Path(os.devnull).stat()
        return "INVOCATION_ID" in env and os.path.samestat(own, null)
    except (OSError, ValueError):
        return False


class LineWriter(logging.Handler):
    """Writes records to their targets, and counts those that no target took."""

    def __init__(
        self,
        fd: int,
        form: str,
        *,
        to_journal: bool,
        journal_path: str = "/run/systemd/journal/socket",
        folder: Path | None = None,
    ) -> None:
        """Make the writer. `folder`: of the worker.log that `fd` is."""
        super().__init__()
        self.dropped = 0
        self._fd, self._form, self._journal_path, self._folder = fd, form, journal_path, folder
        self._journal: socket.socket | None = None
        if to_journal:
            self._journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._journal.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        # A log line must never be the reason why something fails, whatever was logged.
        try:
            message, trace = describe(record)
            if self._journal is not None:
                with suppress(OSError):
                    self._journal.sendto(as_fields(record, message, trace), self._journal_path)
                    return
            line = as_json(record, message, trace) if self._form == "json" else ""
            self._write(line or as_text(record, message, trace))
        except Exception:  # not even a lost terminal or a broken __str__
            self.dropped += 1

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        super().close()

    def _write(self, line: str) -> None:
        if self._folder is not None:
            with suppress(OSError):  # whatever fails, the line goes where the last one went
                trim_log(self._fd, self._folder)
        if self.dropped:
            line = f"{line}\n  | {self.dropped} earlier lines are lost: stderr was too slow"
        raw = (line + "\n").encode("utf-8", "backslashreplace")
        while raw:
            # A pipe that is writable takes PIPE_BUF bytes at once. O_NONBLOCK would be set for
            # every process that shares this stderr, the operator's shell included.
            ready = select.poll()
            ready.register(self._fd, select.POLLOUT)
            events = ready.poll(0)
            if not events or events[0][1] & (select.POLLERR | select.POLLNVAL):
                self.dropped += 1
                return
            raw = raw[os.write(self._fd, raw[: select.PIPE_BUF]) :]
        self.dropped = 0


def open_log(folder: Path) -> int:
    """Open a descriptor that appends: a log can be shortened under a running worker."""
    path = folder / WORKER_LOG
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            path.rename(folder / f"{WORKER_LOG}.{time.time():.0f}")
        elif not stat.S_ISREG(mode):
            path.unlink()  # a pipe would be waited for, and a link's target is another file
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    trim_log(fd, folder)
    return fd


def trim_log(fd: int, folder: Path) -> None:
    """Keep the last full piece as worker.log.1, and go on in an empty file: together they are
    bounded. By its descriptor: it may have been moved."""
    if os.fstat(fd).st_size > LOG_LIMIT:
        log, before = Path(f"/proc/self/fd/{fd}"), folder / f"{WORKER_LOG}.1"
        with log.open("rb") as read, before.open("wb") as write:
            os.fchmod(write.fileno(), 0o600)
            read.seek(-LOG_LIMIT, os.SEEK_END)
            write.write(read.read(LOG_LIMIT))
        os.ftruncate(fd, 0)


def describe(record: logging.LogRecord) -> tuple[str, str]:
    """Return message and traceback, without secrets and control characters."""
    try:
        message = record.getMessage()
    except Exception as error:  # wrong arguments for the text: still say what was meant
        message = f"{record.msg!s} (cannot fill in {record.args!r}: {error})"
    trace = ""
    if record.exc_info and record.exc_info[1] is not None:
        trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        trace = redaction.redact(trace[-2 * LONGEST :])[-LONGEST:]
        trace = "\n".join(clean(line) for line in trace.splitlines())
    # Cut after the redaction, which does not recognise half a secret.
    return clean(redaction.redact(message[: 2 * LONGEST])[:LONGEST]), trace


def level_word(record: logging.LogRecord) -> str:
    words = [word for word, least in LEVELS.items() if record.levelno >= least]
    return words[-1].upper() if words else "DEBUG"


def _about(record: logging.LogRecord) -> tuple[str, str]:
    category = getattr(record, "wa_category", "") or Category.SYSTEM
    return str(category), clean(str(getattr(record, "wa_instance", "") or ""))


def as_text(record: logging.LogRecord, message: str, trace: str) -> str:
    category, instance = _about(record)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    line = f"[{at}] [{level_word(record)}] [{category}] [{instance or '-'}] {message}"
    return line + "".join(f"\n  | {part}" for part in trace.splitlines())


def as_json(record: logging.LogRecord, message: str, trace: str) -> str:
    category, instance = _about(record)
    fields: dict[str, object] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        + f".{int(record.msecs):03d}Z",
        "level": level_word(record),
        "category": category,
        "instance": instance or None,
        "text": message,
        "logger": record.name,
    }
    if trace:
        fields["trace"] = trace
    return json.dumps(fields, ensure_ascii=False)


def as_fields(record: logging.LogRecord, message: str, trace: str) -> bytes:
    """Return the journal's native datagram, in which no value can pass for another field."""
    category, instance = _about(record)
    fields = {
        "MESSAGE": f"{message}\n{trace}" if trace else message,
        "PRIORITY": {"ERROR": "3", "WARN": "4", "INFO": "6", "DEBUG": "7"}[level_word(record)],
        "SYSLOG_IDENTIFIER": "wa-agent",
        "WA_CATEGORY": category,
        "WA_INSTANCE": instance,
        "LOGGER": clean(record.name),
        "CODE_FILE": clean(record.pathname),
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": clean(record.funcName or ""),
    }
    raw = b""
    for name, value in fields.items():
        if text := value.encode("utf-8", "backslashreplace"):
            raw += name.encode() + b"\n" + struct.pack("<Q", len(text)) + text + b"\n"
    return raw
