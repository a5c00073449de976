"""Plain systemd, booted in a container: a template unit with the same worker, nothing of ours."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.config.config import WorkerSection
from agent.core.model import InstanceId
from scripts.benches.machine import TOP
from scripts.benches.peers import NotHere
from scripts.benches.site import WORKER, Site
from tests.system.bed import Bed

UNIT = """\
[Service]
Type=notify
NotifyAccess=main
ExecStart={command} %i
Environment=WA_SESSION_ROOT={sessions} PYTHONPATH={top}
RuntimeDirectory=wa-bench/%i
Restart=always
RestartSec={delay}
WatchdogSec={watchdog:g}
TimeoutStopSec=30
Slice=wa-bench.slice
"""
SESSIONS = "/var/lib/wa-bench"


class Systemd:
    """One manager (PID 1 of the container); its journal's process is not counted."""

    name = "systemd"

    def __init__(self, site: Site) -> None:
        if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
            raise NotHere("systemd: needs root and systemd-nspawn (Debian: systemd-container)")
        self._site = site
        self._units = [f"wa-bench@{id}.service" for id in site.ids]
        done = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=True
        )
        self.version = done.stdout.split()[1]
        self._bed = Bed.make()
        if not (self._bed.root / Path(sys.executable).relative_to("/")).exists():
            self._bed.close()
            raise NotHere(f"systemd: the container does not see {TOP}")

    def boot(self) -> None:
        """With the sessions as they are now, and no worker started."""
        shutil.copytree(self._site.sessions, self._bed.root / SESSIONS.lstrip("/"))
        self._write_unit("100ms")
        self._bed.boot()

    def _write_unit(self, delay: str) -> None:
        text = UNIT.format(
            command=" ".join(WORKER),
            sessions=SESSIONS,
            top=TOP,
            delay=delay,
            watchdog=WorkerSection().watchdog,
        )
        self._bed.write("/etc/systemd/system/wa-bench@.service", text)

    async def restart_after(self, delay: str) -> None:
        self._write_unit(delay)
        await self._systemctl("daemon-reload")

    async def begin(self) -> None:
        await self._systemctl("start", "--no-block", *self._units)

    async def end(self) -> None:
        await self._systemctl("stop", *self._units)

    async def _systemctl(self, *words: str) -> None:
        await asyncio.to_thread(self._bed.run, "systemctl", *words, within=120.0)

    def own_pids(self) -> Sequence[int]:
        return [self._bed.init]

    def link_path(self, id: InstanceId) -> Path:
        return self._bed.path(f"/run/wa-bench/{id}/link.sock")

    def close(self) -> None:
        self._bed.close()
