"""Workers of forked agents, forked as well: a fresh Python costs more than all that most tests do.

Beside each forked agent stands a process of the same imports, forked before the agent had a thread
or an event loop. What the agent's process host spawns is made there, as the agent's own child
(CLONE_PARENT), so that it is waited for, signalled and reaped as a spawned one. It has the session,
descriptors, signals, environment, command line and output of one; only its imports are done.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_PACKET = 1 << 18
_CLONE_PARENT = 0x8000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, 0)
_SET_MM, _SET_MM_MAP = 35, 14
_PLACES = (
    *("start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack"),
    *("arg_start", "arg_end", "env_start", "env_end"),
)
_INHERITED = ("Umask", "Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Cpus_allowed")
_WORKER = ["-m", "agent.worker"]
_shown: list[Any] = []
"""What /proc shows of this process; kept as long as it lives."""


class _Map(ctypes.Structure):
    """prctl_mm_map of prctl(2): where the parts of this process lie in its memory."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in _PLACES),
        *(("auxv", ctypes.c_uint64), ("auxv_size", ctypes.c_uint32), ("exe_fd", ctypes.c_uint32)),
    )


def look_like(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether /proc shows this command line and environment from now on; not each kernel can."""
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_uint64
    words = b"".join(word.encode() + b"\0" for word in argv)
    lines = b"".join(f"{name}={value}".encode() + b"\0" for name, value in env.items())
    shown = ctypes.create_string_buffer(words + lines, len(words + lines) + 1)
    at = ctypes.addressof(shown)
    _shown.append(shown)
    with open("/proc/self/stat") as stat:  # noqa: PTH123 - a few fields of its one line
        fields = ["", "", "", *stat.read().rpartition(")")[2].split()]
    code, data = (int(fields[26]), int(fields[27])), (int(fields[45]), int(fields[46]))
    heap, stack = (int(fields[47]), 0), int(fields[28])
    ends = at, at + len(words), at + len(words), at + len(words + lines)
    places = _Map(*code, *data, *heap, stack, *ends, 0, 0, 0xFFFFFFFF)
    size = ctypes.sizeof(places)
    places.brk = libc.sbrk(0)
    return not libc.prctl(_SET_MM, _SET_MM_MAP, ctypes.byref(places), ctypes.c_ulong(size), 0)


def _read(env: Mapping[str, str]) -> dict[str, str]:
    """What Python reads before `main`, but for what is done in its place here."""
    read = {name: value for name, value in env.items() if name.startswith(("PYTHON", "LD_"))}
    read.pop("PYTHONUNBUFFERED", None)
    return read


def _inherited() -> str:
    """What a child has of its parent: limits, control groups, user, rights, processors."""
    texts = [Path("/proc/self", name).read_text() for name in ("limits", "cgroup", "oom_score_adj")]
    lines = Path("/proc/self/status").read_text().splitlines()
    return "\n".join([*texts, *(line for line in lines if line.startswith(_INHERITED))])


def fork_workers() -> None:
    """From now on this process, which becomes an agent, has its workers forked."""
    if not _SYS_CLONE:
        return
    startup, inherited = _read(os.environ), _inherited()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        with contextlib.suppress(BaseException):
            os.chdir("/")
            look_like([sys.executable, "-m", "tests.forked_workers"], os.environ)
            _serve(its)
        os._exit(0)
    its.close()
    from agent.host import process

    spawn = process.spawn
    lock = threading.Lock()

    def spawn_or_fork(arguments: list[str], environment: Mapping[str, str], out: int) -> int:
        """In the place of `agent.host.process.spawn`."""
        if arguments[:2] != _WORKER or _read(environment) != startup or _inherited() != inherited:
            return spawn(arguments, environment, out)
        handed = [file for file in _descriptors() if _is_inherited(file)]
        told = {"argv": arguments, "env": dict(environment), "files": handed}
        told["cwd"] = str(Path.cwd())
        with lock:
            try:
                socket.send_fds(ours, [json.dumps(told).encode()], [out, *handed])
                pid = int(ours.recv(_PACKET) or b"0")
            except OSError:
                pid = 0
        return pid or spawn(arguments, environment, out)

    process.spawn = spawn_or_fork


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208


def _is_inherited(file: int) -> bool:
    with contextlib.suppress(OSError):  # the listing's own
        return file > 2 and os.get_inheritable(file)
    return False


def _serve(sock: socket.socket) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's are for the agent
    null = os.open(os.devnull, os.O_RDWR)
    for target in range(3):
        os.dup2(null, target)
    for file in _descriptors():
        if file > 2 and file != sock.fileno():
            with contextlib.suppress(OSError):
                os.close(file)
    while True:
        packet, files, _, _ = socket.recv_fds(sock, _PACKET, 64)
        if not packet:
            return
        asked = json.loads(packet)
        ready, begun = os.pipe()
        pid = _fork_sibling()
        if pid == 0:
            os.close(ready)
            os.close(sock.fileno())
            _become_worker(asked, files, begun)
        for file in (*files, begun):
            os.close(file)
        os.read(ready, 1)  # posix_spawn, too, returns once it is what it was started as
        os.close(ready)
        sock.send(str(max(pid, 0)).encode())


def _fork_sibling() -> int:
    """`os.fork`, but the new process is a child of this one's parent. No other thread runs here."""
    python = ctypes.PyDLL(None)
    python.PyOS_BeforeFork()
    pid: int = python.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def _become_worker(asked: Mapping[str, Any], files: Sequence[int], begun: int) -> NoReturn:
    """What posix_spawn and Python's start leave behind, then the worker's own `main`."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        targets = [1, *asked["files"]]
        high = max([*targets, *files, begun]) + 1
        *moved, told = [_dup_above(file, high) for file in (*files, begun)]
        for file in (*files, begun):
            os.close(file)
        for file, target in zip(moved, targets, strict=True):
            os.dup2(file, target, inheritable=True)
            os.close(file)
        os.dup2(1, 2)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        time.tzset()
        look_like([sys.executable, *asked["argv"]], asked["env"])
        os.close(told)
        sys.argv = list(asked["argv"][1:])
        from agent.worker.__main__ import main

        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through="PYTHONUNBUFFERED" in os.environ)  # type: ignore
        status = main(asked["argv"][2:])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        end_at_once(status)


def _dup_above(file: int, least: int) -> int:
    import fcntl

    return fcntl.fcntl(file, fcntl.F_DUPFD, least)


def end_at_once(status: int) -> NoReturn:
    """As Python's own end, but without taking apart what was imported."""
    import atexit

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
