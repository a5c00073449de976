"""The agent's side of the warm process, from which workers are forked. Started when first needed
and again when it died. It only saves memory: a worker that cannot be forked is spawned instead."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.errors import HostError
from agent.host.process.child import Child, Exit
from agent.host.process.launch import spawn
from agent.log import about
from agent.worker_log import trim_log

log = logging.getLogger(__name__)

# Few at a time, so that the socket's buffer never fills up.
FORKS_AT_ONCE = 8
FORK_WITHIN = 15.0
CLOSE_WITHIN = 5.0
_PACKET = 64 * 1024

OnExit = Callable[[int, Exit], None]
"""pid, and how it ended."""


class WarmProcess:
    def __init__(self, log_path: Path, on_exit: OnExit, on_loss: Callable[[int], None]) -> None:
        self._log_path = log_path
        self._on_exit = on_exit
        self._on_loss = on_loss
        self._window = asyncio.Semaphore(FORKS_AT_ONCE)
        self._sock: socket.socket | None = None
        self._child: Child | None = None
        self._asked: dict[InstanceId, asyncio.Future[int]] = {}
        self._unanswered = 0
        """Requests that the warm process has not answered, also those given up since."""
        self._closed = asyncio.Event()

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._child.pid if self._child is not None else 0

    async def fork(self, instance: InstanceId, environment: Mapping[str, str], out: int) -> int:
        """The pid of a new worker whose output goes to `out`; HostError when there is none."""
        async with self._window:
            if instance in self._asked:
                raise HostError(f"cannot fork a worker for {instance}: one is being forked")
            if self._sock is None:
                self._begin()
            assert self._sock is not None
            answer = asyncio.get_running_loop().create_future()
            self._asked[instance] = answer
            try:
                asked = {"fork": instance, "env": dict(environment)}
                packet = json.dumps(asked).encode()
                socket.send_fds(self._sock, [packet], [out, out])
                self._unanswered += 1
                async with asyncio.timeout(FORK_WITHIN):
                    return int(await answer)
            except (OSError, TimeoutError) as error:
                raise HostError(
                    f"cannot fork a worker for {instance}: {error or 'no answer'}"
                ) from error
            finally:
                del self._asked[instance]

    async def close(self) -> None:
        """It ends when the agent's end of the socket is closed; its children live on. A worker
        whose start was broken off is killed: no note would lead a later agent to it."""
        child, self._child = self._child, None
        if child is not None:
            child.release()
        if self._sock is not None and self._unanswered:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            try:
                async with asyncio.timeout(CLOSE_WITHIN):
                    await self._closed.wait()
            except TimeoutError:
                log.warning("the warm process does not end; killing it")
                if child is not None:
                    os.kill(child.pid, signal.SIGKILL)  # not waited for: the pid is its own
                if self._sock is not None:
                    self._readable(self._sock)
        self._drop_socket()

    def _begin(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        trim_log(self._log_path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(self._log_path, flags, 0o600)
        try:
            its.set_inheritable(True)
            environment = {**os.environ, "WA_WARM_FD": str(its.fileno())}
            pid = spawn(["-m", "agent.worker", "--warm"], environment, out)
        except OSError as error:
            ours.close()
            raise HostError(f"cannot start the warm process: {error}") from error
        finally:
            its.close()
            os.close(out)
        ours.setblocking(False)
        self._sock = ours
        self._closed.clear()
        self._child = child = Child.spawned(pid)
        child.ended.add_done_callback(lambda _: self._lost(child))
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable, ours)
        log.info("started the warm process %s", pid)

    def _readable(self, sock: socket.socket) -> None:
        while self._sock is sock:
            try:
                packet = sock.recv(_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                self._drop_socket()
                return
            self._hear(packet)

    def _hear(self, packet: bytes) -> None:
        try:
            said = json.loads(packet)
            if "exited" not in said:
                self._unanswered -= 1
            if "forked" in said:
                self._forked(said["forked"], int(said["pid"]))
            elif "error" in said:
                self._refused(said["id"], str(said["error"]))
            elif "exited" in said:
                self._on_exit(int(said["pid"]), Exit(said["code"], said["signal"]))
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the warm process sent an unknown message: %s", error)

    def _forked(self, instance: Any, pid: int) -> None:
        answer = self._asked.get(instance)
        if answer is not None and not answer.done():
            answer.set_result(pid)
            return
        # Its request was given up: another worker was started in its place, or the agent stops.
        log.warning(
            "the warm process forked worker %s of %s too late; killed",
            pid,
            instance,
            extra=about(instance),
        )
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)

    def _refused(self, instance: Any, why: str) -> None:
        answer = self._asked.get(instance)
        if answer is not None and not answer.done():
            answer.set_exception(HostError(why))

    def _lost(self, child: Child) -> None:
        if self._child is child:  # not closed, and no other one was begun
            self._child = None
            if self._sock is not None:
                self._readable(self._sock)  # what it said before its end
            self._drop_socket()
        status = child.ended.result().status
        log.warning("the warm process %s ended (status %s)", child.pid, status)
        self._on_loss(child.pid)

    def _drop_socket(self) -> None:
        sock, self._sock = self._sock, None
        self._unanswered = 0
        self._closed.set()
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        for instance, answer in self._asked.items():
            if not answer.done():
                answer.set_exception(
                    HostError(f"cannot fork a worker for {instance}: the warm process ended")
                )
