"""Large bodies: an archive is streamed from and to a file, never held whole."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agent.cli.client import Client
from agent.errors import InvalidRequest, Refused, WaError
from agent.files import replacing

if TYPE_CHECKING:
    from http.client import HTTPResponse


LONGEST = 1800.0
"""Seconds without a byte: a large session is copied, checked and packed in that time."""
_PIECE = 1 << 18


def upload(client: Client, path: str, source: IO[bytes]) -> Any:
    size = os.fstat(source.fileno()).st_size
    headers = {"Content-Type": "application/gzip", "Content-Length": str(size)}
    with client.exchange("POST", path, source, headers, LONGEST) as response:
        return json.loads(response.read())


def download(client: Client, path: str, body: Mapping[str, Any], target: Path) -> str:
    """Fetch into a file that is whole or missing, for its owner alone; returns its SHA-256."""
    headers = {"Accept": "*/*", "Content-Type": "application/json"}
    with client.exchange("POST", path, json.dumps(body).encode(), headers, LONGEST) as response:
        return write_checked(response, target, response.headers.get("X-Archive-SHA256"))[1]


def write_checked(response: "HTTPResponse", target: Path, announced: str | None) -> tuple[int, str]:
    """Size and SHA-256 of what arrived, which is the announced one."""
    digest, received = hashlib.sha256(), 0
    with whole_file(target) as file:
        while piece := response.read(_PIECE):
            file.write(piece)
            digest.update(piece)
            received += len(piece)
        if digest.hexdigest() != announced:
            raise WaError(f"cannot write {target}: it did not arrive whole; try again")
    return received, digest.hexdigest()


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write into, for its owner alone: it appears when it is written whole."""
    try:
        with replacing(target) as file:
            yield file
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
        why = f"{target.parent} is not writable"
    if why:
        raise Refused(f"cannot write {target}: {why}", field="file")


def open_source(path: Path, field: str) -> IO[bytes]:
    """A pipe or a device would be waited for, or never end; an address may hold a password."""
    scheme, is_address, _ = str(path).partition(":/")
    shown = f"{scheme}://" if is_address else path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return os.fdopen(fd, "rb")
        os.close(fd)
        why = "it is no regular file"
    except OSError as error:
        why = error.strerror or str(error)
    raise InvalidRequest(f"cannot read {shown}: {why}", field=field, code="unreadable")
