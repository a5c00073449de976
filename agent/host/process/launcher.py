"""Starts the process of one run of a worker, forked from the warm process where that may be."""

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.config.sections import WorkerSection
from agent.core.model import InstanceId
from agent.errors import HostError
from agent.host.process.child import Child, Exit
from agent.host.process.launch import Places, make_run_dir, spawn, worker_environment
from agent.instance_file import read_instance_file
from agent.log import about
from agent.wing import modules_of
from agent.worker_log import open_log

log = logging.getLogger(__name__)


class Warm(Protocol):
    """The process that a wing forks workers from. It only saves memory: a worker that cannot be
    forked is spawned instead."""

    @property
    def pid(self) -> int: ...

    async def fork(self, instance: InstanceId, environment: Mapping[str, str], out: int) -> int:
        """The pid of a new worker whose output goes to `out`; HostError when there is none."""

    async def close(self) -> None: ...


def open_warm(
    log_path: Path, on_exit: Callable[[int, Exit], None], on_loss: Callable[[int], None]
) -> Warm | None:
    """`on_exit`: of a forked worker, by its pid; `on_loss`: of the process itself."""
    for module in modules_of("forks"):
        opened: Warm = module.WarmProcess(log_path, on_exit, on_loss)
        return opened
    return None


@dataclass(slots=True, eq=False, repr=False)
class Launcher:
    """`program`: what Python runs; `forkable`: engines whose workers may be forked."""

    places: Places
    settings: WorkerSection
    warm: Warm | None
    forkable: Collection[str]
    program: Sequence[str]

    async def launch(self, instance: InstanceId, run: str) -> Child:
        folder = self.places.folder(instance)
        environment = worker_environment(instance, run, self.places, self.settings)
        try:
            make_run_dir(folder)
            (folder / "link.sock").unlink(missing_ok=True)
            out = open_log(folder)
        except OSError as error:
            raise HostError(f"cannot prepare {folder} for {instance}: {error}") from error
        try:
            child = await self._fork(instance, environment, out)
            if child is None:
                child = Child.spawned(spawn([*self.program, instance], environment, out))
        except OSError as error:
            raise HostError(f"cannot start a worker for {instance}: {error}") from error
        finally:
            os.close(out)
        return child

    async def _fork(
        self, instance: InstanceId, environment: Mapping[str, str], out: int
    ) -> Child | None:
        """None when it must be spawned: the engine forbids forking, or no warm process can."""
        file = read_instance_file(self.places.session_root, instance)
        warm = self.warm if self.settings.warm else None
        if warm is None or file is None or file.engine not in self.forkable:
            return None
        try:
            pid = await warm.fork(instance, environment, out)
        except HostError as error:
            log.warning("%s; spawning it", error)
            return None
        child = Child.forked(pid, warm.pid)
        if child is None:
            log.warning("the forked worker of %s ended at once", instance, extra=about(instance))
        return child
