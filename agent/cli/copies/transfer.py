"""Long requests and large bodies: an archive is streamed from and to a file, never held whole."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agent.cli.client import AgentSaidNo, Client
from agent.errors import AgentUnreachable, Refused, WaError
from agent.files import replacing

if TYPE_CHECKING:
    import http.client

LONGEST = 1800.0
"""Seconds without a byte: a large session is copied, checked and packed in that time."""
_PIECE = 1 << 18

Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's body."""

    body: Any
    """Bytes, something to read, or None."""
    kind: str
    size: int | None = None


@dataclass(slots=True)
class Counted:
    """A file whose reading is counted, with its sum."""

    file: IO[bytes]
    count: Count

    def read(self, size: int = -1) -> bytes:
        piece = self.file.read(min(size, _PIECE) if size > 0 else _PIECE)
        self.count(len(piece))
        return piece


def ask_long(client: Client, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """As Client.request, for what may take minutes."""
    raw = None if body is None else json.dumps(body).encode()
    with _answer(client, method, path, Sent(raw, "application/json")) as answer:
        return json.loads(answer.read())


def upload(client: Client, path: str, source: IO[bytes], size: int, count: Count) -> Any:
    body: Any = Counted(source, count)
    with _answer(client, "POST", path, Sent(body, "application/gzip", size)) as answer:
        return json.loads(answer.read())


def download(client: Client, path: str, body: Mapping[str, Any], target: Path, count: Count) -> str:
    """Fetch into a file that is whole or not there, for its owner alone; its SHA-256."""
    raw = json.dumps(body).encode()
    with _answer(client, "POST", path, Sent(raw, "application/json")) as answer:
        told, size = answer.headers.get("X-Archive-SHA256"), answer.length
        digest, received = hashlib.sha256(), 0
        with whole_file(target) as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                digest.update(piece)
                received += len(piece)
                count(len(piece))
            if digest.hexdigest() != told or (size is not None and received != size):
                raise WaError(f"cannot write {target}: the archive did not arrive whole")
    return digest.hexdigest()


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """To write into: it is there when all was written, for its owner alone."""
    try:
        with replacing(target) as file:
            yield file
    except OSError as error:
        raise WaError(f"cannot write {target}: {error.strerror or error}") from error


def check_target(target: Path, *, force: bool) -> None:
    """Before the agent is troubled: may the file be written?"""
    if target.is_dir():
        raise Refused(f"cannot write {target}: it is a folder", field="file")
    if target.exists() and not force:
        raise Refused(f"cannot write {target}: it exists; --force replaces it", field="file")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise Refused(f"cannot write {target}: {target.parent} may not be written", field="file")


@contextmanager
def _answer(
    client: Client, method: str, path: str, sent: Sent
) -> Iterator["http.client.HTTPResponse"]:
    import http.client

    headers = {"Accept": "*/*", **client.authorization()}
    if sent.body is not None:
        headers["Content-Type"] = sent.kind
    if sent.size is not None:
        headers["Content-Length"] = str(sent.size)
    connection = http.client.HTTPConnection(client.host(), timeout=LONGEST)
    connection.sock = client.open_socket()
    connection.sock.settimeout(LONGEST)
    try:
        # An agent that refuses does so before it has read all: its answer is what counts.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body=sent.body, headers=headers)
        answer = connection.getresponse()
        if answer.status >= 400:
            raise AgentSaidNo(answer.status, _object(answer.read()))
        yield answer
    except (OSError, http.client.HTTPException) as error:
        cause = str(error) or type(error).__name__
        raise AgentUnreachable(f"cannot finish talking to the agent: {cause}") from error
    finally:
        connection.close()


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
