"""Unix sockets of the link: made, reached and identified, however long their path is."""

import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

from agent.errors import LinkError
from agent.files import short_path

_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


def listen_at(path: Path) -> socket.socket:
    """Bind a listening socket; one left over by a dead process is replaced.

    The caller holds the instance's lock, so no live process listens there.
    """
    sock = socket.socket(socket.AF_UNIX, _KIND)
    before = os.umask(0o117)
    try:
        with short_path(path) as name:
            with suppress(FileNotFoundError):
                if not stat.S_ISSOCK(os.lstat(name).st_mode):
                    raise FileExistsError(f"{path.name} is there and is not a socket")
                os.unlink(name)  # noqa: PTH108 - the name goes through an open descriptor
            sock.bind(name)
        sock.listen(16)
    except OSError as error:
        sock.close()
        raise LinkError(f"cannot listen at {path}: {error}", code="unreachable") from error
    finally:
        os.umask(before)
    return sock


def reach(path: Path, pid: int) -> socket.socket:
    """Connect; a Unix socket does so at once or not at all. Only the process `pid` may answer."""
    sock = socket.socket(socket.AF_UNIX, _KIND)
    try:
        with short_path(path) as name:
            sock.connect(name)
    except OSError as error:
        sock.close()
        raise LinkError(f"cannot reach {path}: {error}", code="unreachable") from error
    if (found := peer_of(sock)) != pid:
        sock.close()
        words = f"cannot trust who listens at {path}: process {found} answers, not {pid}"
        raise LinkError(words, code="peer")
    return sock


def peer_of(sock: socket.socket) -> int:
    """The process at the other end, as the kernel names it."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[0])
