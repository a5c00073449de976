"""The process that workers are forked from (process host only).

It imports once what every worker needs and shares that memory with its children. No event
loop and no thread may ever run here: neither survives a fork.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any

from agent.engines.catalog import CATALOG, file_rules, load_engine
from agent.wings.warm.rehearsal import rehearse
from agent.worker.run import run_worker

_PACKET = 256 * 1024


def serve_forks() -> int:
    """Fork on demand until the agent's end of the socket closes; children live on."""
    sock = socket.socket(fileno=int(os.environ["WA_WARM_FD"]))
    sock.setblocking(True)
    for entry in CATALOG.values():
        if entry.forkable:
            load_engine(entry.name)
            file_rules(entry.name)
    if not rehearse():
        print("the rehearsal failed: forked workers will take more memory", file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl+C is the agent's to act on
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    children: dict[int, str] = {}
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(woken, select.POLLIN)
    # Frozen objects are never visited by a child's collections, so their pages stay shared.
    gc.disable()
    gc.collect()
    gc.freeze()
    while True:
        ready = {file for file, _ in poll.poll()}
        if woken in ready:
            os.read(woken, 4096)
            _reap(sock, children)
        if sock.fileno() in ready and not _serve_one(sock, children):
            return 0


def _serve_one(sock: socket.socket, children: dict[int, str]) -> bool:
    """False when the agent is gone."""
    try:
        packet, files, flags, _ = socket.recv_fds(sock, _PACKET, 2)
    except OSError:
        return False
    if not packet:
        return False
    id = ""
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("too long")
        asked = json.loads(packet)
        id, env = asked["fork"], {str(key): str(value) for key, value in asked["env"].items()}
        if not isinstance(id, str) or len(files) != 2:
            raise ValueError("it needs an id and two files")
        # Both sides' buffers are empty, or the child would write what is in them once more.
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become_worker(id, env, files[0], files[1])
        children[pid] = id
        if not _tell(sock, {"forked": id, "pid": pid}):
            os.kill(pid, signal.SIGKILL)  # no agent knows of it
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        _tell(sock, {"error": f"cannot fork a worker: {error}", "id": str(id)})
    finally:
        for file in files:
            os.close(file)
    return True


def _become_worker(id: str, env: dict[str, str], out: int, err: int) -> None:
    """The child's whole life; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        # Above 2 first: `out` or `err` may themselves be 1 or 2.
        high = [os.dup(file) for file in (null, out, err)]
        for target, file in enumerate(high):
            os.dup2(file, target, inheritable=True)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - nothing else may open a file here
            if int(name) > 2:
                with suppress(OSError):  # the listing's own
                    os.close(int(name))
        with suppress(OSError), open("/proc/self/comm", "w") as comm:  # noqa: PTH123 - lean
            comm.write(f"wa-{id}"[:15])  # or `ps` would call every worker what it was forked from
        os.environ.clear()
        os.environ.update(env)
        gc.enable()
        status = run_worker(id)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _reap(sock: socket.socket, children: dict[int, str]) -> None:
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended = os.waitstatus_to_exitcode(status)
        _tell(
            sock,
            {
                "exited": children.pop(pid, ""),
                "pid": pid,
                "code": ended if ended >= 0 else None,
                "signal": -ended if ended < 0 else None,
            },
        )


def _tell(sock: socket.socket, packet: dict[str, Any]) -> bool:
    """False when the agent is gone; the next read says so, too."""
    try:
        sock.send(json.dumps(packet).encode())
    except OSError:
        return False
    return True
