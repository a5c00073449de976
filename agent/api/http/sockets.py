"""The sockets to listen on: passed by systemd, or bound here."""

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.config.config import ApiSection
from agent.errors import ConfigError, TryLater
from agent.files import short_path

_FIRST_HANDED_OVER = 3
BACKLOG = 1024


@dataclass(slots=True)
class Opened:
    """The sockets, their addresses, and the Unix socket's file, which the agent removes."""

    sockets: list[socket.socket] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    own_socket: tuple[Path, int] | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, sock: socket.socket, address: str = "") -> None:
        self.sockets.append(sock)
        self.addresses.append(address or describe(sock))


def open_sockets(
    section: ApiSection, socket_path: Path | None, environ: MutableMapping[str, str]
) -> Opened:
    opened = Opened()
    for sock in take_sockets(environ, os.getpid()):
        opened.add(sock)
    families = {sock.family for sock in opened.sockets}
    try:
        if section.listen and not families & {socket.AF_INET, socket.AF_INET6}:
            try:
                opened.add(bind_tcp(section.listen))
            except TryLater as error:  # sessions run without it
                opened.missing[section.listen] = str(error)
        path = Path(section.socket) if section.socket else socket_path
        if path is not None and socket.AF_UNIX not in families:
            opened.add(bind_unix(path), f"unix:{path}")
            opened.own_socket = (path, path.lstat().st_ino)
    except BaseException:
        for sock in opened.sockets:
            sock.close()
        raise
    return opened


def take_sockets(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """The sockets that systemd passed to this process; removes the variables, so that no child uses
    them."""
    meant_for = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(pid) or not count.isdigit():
        return []
    numbers = range(_FIRST_HANDED_OVER, _FIRST_HANDED_OVER + int(count))
    sockets = [socket.socket(fileno=number) for number in numbers]
    for sock in sockets:
        sock.set_inheritable(False)
        sock.setblocking(False)
    return sockets


def parse_listen(listen: str, field: str = "api.listen") -> tuple[str, int]:
    """HOST:PORT, [IPv6]:PORT."""
    host, mark, port = listen.rpartition(":")
    if not mark or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"cannot listen on {listen!r}: it must be HOST:PORT", field=field)
    return host.strip("[]") or "127.0.0.1", int(port)


def bind_tcp(listen: str, *, name_holder: bool = True) -> socket.socket:
    """`TryLater` while another program has the port or the machine lacks the address."""
    host, port = parse_listen(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"cannot listen on {listen}: {error}", field="api.listen") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            holder = _holder(port) if name_holder else ""
            raise TryLater(
                f"cannot listen on {listen}: the address is in use{holder};"
                " stop that program or change api.listen",
                field="api.listen",
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise TryLater(
                f"cannot listen on {listen}: no interface of this machine has that address;"
                " bring it up or change api.listen",
                field="api.listen",
            ) from error
        raise ConfigError(
            f"cannot listen on {listen}: {error.strerror}", field="api.listen"
        ) from error
    sock.setblocking(False)
    return sock


def _holder(port: int) -> str:
    """The program that has the port, as far as this user may see it."""
    import psutil  # a MiB that an agent which got its port never needs

    with suppress(psutil.Error, OSError):
        for entry in psutil.net_connections("tcp"):
            here = entry.laddr and entry.laddr.port == port
            if here and entry.pid and entry.status == psutil.CONN_LISTEN:
                return f" by {psutil.Process(entry.pid).name()} (pid {entry.pid})"
    return ""


def bind_unix(path: Path) -> socket.socket:
    """Bound with mode 0660. A socket that another agent listens on is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with short_path(path) as short:
            _remove_stale(path, short)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # The file takes its mode from the socket: at no moment is it open to others.
                os.fchmod(sock.fileno(), 0o660)
                sock.bind(short)
                Path(short).chmod(0o660)  # the umask may have removed bits
                sock.listen(BACKLOG)
            except OSError:
                sock.close()
                raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise TryLater(f"cannot listen on {path}: another agent bound it first") from error
        cause = f"cannot listen on {path}: {error.strerror or error}"
        cure = "move away what is in its way, or point [api] socket elsewhere"
        raise ConfigError(f"{cause}; {cure}", field="api.socket") from error
    sock.setblocking(False)
    return sock


def _remove_stale(path: Path, short: str) -> None:
    try:
        status = os.lstat(short)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "what has that path is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        failed = probe.connect_ex(short)
    if failed == errno.ECONNREFUSED:
        Path(short).unlink()
    elif failed != errno.ENOENT:
        cause = os.strerror(failed) if failed else "another agent listens there; stop that agent"
        raise TryLater(f"cannot listen on {path}: {cause}")


def describe(sock: socket.socket, scheme: str = "http") -> str:
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(address)}"
    host = address[0]
    shown = f"[{host}]" if ipaddress.ip_address(host.partition("%")[0]).version == 6 else host
    return f"{scheme}://{shown}:{address[1]}"
