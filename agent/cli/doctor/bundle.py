"""The archive that `wa-agent doctor --bundle` writes for support, without secrets. Every text
passes through `clean_text`: it removes keys, QR codes, passwords and phone numbers."""

import io
import json
import os
import platform
import re
import sqlite3
import stat
import subprocess
import sys
import tarfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from agent import VERSION
from agent.cli.client import Client
from agent.config import render
from agent.config.config import Config
from agent.errors import Refused, WaError
from agent.host import units
from agent.redaction import REMOVED, redact

ENTRIES = 500
_PLAIN = (bool, int, float)
_PEOPLE = re.compile(
    r"\+?\d{7,15}(?=@(?:s\.whatsapp\.net|c\.us|g\.us|lid|newsletter))|\+\d{7,15}\b"
)
_VARIABLES = (
    *("LANG", "LC_ALL", "TZ", "WA_AGENT_", "SESSION_STORAGE_PATH", "CACHE_PATH"),
    *("BACKEND_URL", "REDIS_URL"),
)
_ROOMS = ("backends", "health", "messages", "troubles", "webhooks")
LINES = 500
"""The last lines of the services' journal, and of each log file."""
BYTES = 256 * 1024
WORKER_LINES = 100
WORKERS = 50
"""Worker logs at most, the last written ones; only the process host has them."""
_SECONDS = 20.0
_OURS = (
    *(units.AGENT_SERVICE, units.AGENT_SOCKET, units.AGENT_HTTP_SOCKET, units.INSTANCES_SLICE),
    *("wa-instance@*.service", "wa-pack@*.service"),
)
_SHOWN = (
    "Id,LoadState,ActiveState,SubState,Result,ExecMainStatus,ExecMainCode,NRestarts,UnitFileState,"
    "DropInPaths,FragmentPath,NeedDaemonReload,MemoryCurrent,MemoryHigh,MemoryMax,TasksCurrent,"
    "TasksMax,StateChangeTimestamp,InvocationID,StatusText"
)
"""Never Environment=, which may hold a password."""


def write_bundle(
    target: Path, config: Config, findings: list[dict[str, Any]], client: Client
) -> None:
    parts = {
        "versions.json": _versions(),
        "findings.json": findings,
        "config.json": without_secrets(render.tables_of(render.without_secrets(config))),
        "environment.json": _environment(os.environ),
        "events.json": _asked(client, f"/api/events?limit={ENTRIES}"),
        "metrics.txt": _metrics(client),
        **{f"{name}.json": _asked(client, f"/api/{name}") for name in _ROOMS},
        **dict(machine_parts(config)),
    }
    try:
        # Exclusive and private: every user can write into /tmp.
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in parts.items():
                _add(archive, name, content)
    except FileExistsError:
        raise Refused(f"cannot write {target}: it exists") from None
    except OSError as error:
        raise WaError(f"cannot write {target}: {error.strerror or error}") from error


def _add(archive: tarfile.TarFile, name: str, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=1, default=str)
    body = clean_text(text).encode("utf-8", "replace")
    member = tarfile.TarInfo(f"wa-agent/{name}")
    member.size, member.mtime, member.mode = len(body), int(time.time()), 0o600
    archive.addfile(member, io.BytesIO(body))


def clean_text(text: str) -> str:
    """The text without secrets and without people's numbers."""
    return "\n".join(_PEOPLE.sub(REMOVED, redact(line)) for line in text.split("\n"))


def without_secrets(settings: Any, *, foreign: bool = False) -> Any:
    """`foreign`: settings of an engine, of which only names and numbers are kept."""
    if isinstance(settings, Mapping):
        return {
            name: without_secrets(value, foreign=foreign or name == "settings")
            for name, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [without_secrets(value, foreign=foreign) for value in settings]
    if foreign and not isinstance(settings, _PLAIN) and settings is not None:
        return REMOVED
    return settings if isinstance(settings, _PLAIN) or settings is None else str(settings)


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """The agent's variables; the value of a key is removed."""
    chosen = {name: value for name, value in env.items() if name.startswith(_VARIABLES)}
    secret = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
    return {name: REMOVED if secret.search(name) else value for name, value in chosen.items()}


def _versions() -> dict[str, str]:
    versions = {"wa-agent": VERSION, "python": sys.version.split()[0]}
    versions |= {"kernel": platform.release(), "machine": platform.machine()}
    versions |= {"sqlite": sqlite3.sqlite_version, "system": ""}
    with suppress(OSError):
        versions["system"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return versions | {package.name: package.version for package in distributions()}


def _asked(client: Client, path: str) -> Any:
    try:
        return client.get(path)
    except WaError as error:
        return {"missing": str(error)}


def _metrics(client: Client) -> str:
    try:
        return client.request("GET", "/metrics").body.decode(errors="replace")
    except WaError as error:
        return f"# missing: {error}\n"


def machine_parts(config: Config) -> Iterator[tuple[str, str]]:
    """Names and texts of the parts that need no running agent."""
    wanted = [word for unit in _OURS for word in ("-u", unit)]
    form = ("--no-pager", "-q", "-o", "short-iso-precise", "-n", str(LINES))
    yield "journal.txt", _said("journalctl", *form, *wanted)
    yield "units.txt", _said("systemctl", "show", "--no-pager", "-p", _SHOWN, *_OURS)
    if config.log.folder:
        for path in sorted(Path(config.log.folder).glob("*.log")):
            yield f"logs/{path.name}", _tail(path, LINES)
    for path in _worker_logs(config.agent.state_path):
        yield f"workers/{path.parent.name}.log", _tail(path, WORKER_LINES)


def _said(*words: str) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"# missing: {error}\n"
    text = (done.stdout or b"").decode(errors="replace")
    complaint = done.stderr.decode(errors="replace").strip()
    return text if not complaint else f"{text}# {words[0]}: {complaint}\n"


def _tail(path: Path, lines: int) -> str:
    """A worker may write in its log's folder: links are not followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return "# missing: it is no file\n"
            file.seek(max(status.st_size - BYTES, 0))
            return b"".join(deque(file, lines)).decode(errors="replace")
    except OSError as error:
        return f"# missing: {error.strerror or error}\n"


def _worker_logs(state: Path) -> list[Path]:
    """The last written ones."""
    logs: list[tuple[float, Path]] = []
    for path in (*state.glob("run/*/worker.log"), *state.glob("run-packs/*/worker.log")):
        with suppress(OSError):
            if not path.parent.is_symlink():
                logs.append((path.lstat().st_mtime, path))
    return [path for _, path in sorted(logs, reverse=True)[:WORKERS]]
