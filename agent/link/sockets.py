"""Unix sockets of the link: made, reached and identified, however long their path is."""

import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import LinkError
from agent.files import short_path


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel names it."""

    pid: int
    uid: int
    gid: int


CheckPeer = Callable[[Peer], str | None]
"""Why this peer is not the one that was meant; None when it is."""


def only_process(pid: int) -> CheckPeer:
    """Only the unit's main process may answer for it."""

    def check(peer: Peer) -> str | None:
        if peer.pid != pid:
            return f"process {peer.pid} answers, the unit's main process is {pid}"
        return None

    return check


def peer_of(sock: socket.socket) -> Peer:
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


def listen_at(path: Path, *, mode: int = 0o660) -> socket.socket:
    """Bind a listening socket; one left over by a dead process is replaced.

    The caller holds the instance's lock, so no live process listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    before = os.umask(0o777 & ~mode)
    try:
        with short_path(path) as name:
            _remove_stale(name)
            sock.bind(name)
        sock.listen(16)
    except OSError as error:
        sock.close()
        raise LinkError(f"cannot listen at {path}: {error}", code="unreachable") from error
    finally:
        os.umask(before)
    return sock


def reach(path: Path) -> socket.socket:
    """Connect; a Unix socket does so at once or not at all."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        with short_path(path) as name:
            sock.connect(name)
    except OSError as error:
        sock.close()
        raise LinkError(f"cannot reach {path}: {error}", code="unreachable") from error
    return sock


def reach_trusted(path: Path, check_peer: CheckPeer) -> tuple[socket.socket, Peer]:
    """Connect, and go on only with a peer that `check_peer` says nothing against."""
    sock = reach(path)
    try:
        peer = peer_of(sock)
        refused = check_peer(peer)
        if refused is not None:
            raise LinkError(f"cannot trust who listens at {path}: {refused}", code="peer")
    except BaseException:
        sock.close()
        raise
    return sock, peer


def inode_of(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except OSError:
        return 0


def remove_own(path: Path, inode: int) -> None:
    """Remove the socket file unless it has become another one's."""
    with suppress(OSError):
        if inode and inode_of(path) == inode:
            path.unlink()


def _remove_stale(name: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(name).st_mode):
            raise FileExistsError(f"{os.path.basename(name)} is there and is not a socket")  # noqa: PTH119
        os.unlink(name)  # noqa: PTH108 - the name goes through an open descriptor
    except FileNotFoundError:
        pass
