"""supervisord and pm2: installed by exact version when missing, each in a folder of its own."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.core.model import InstanceId
from scripts.benches.machine import CACHE, TOP
from scripts.benches.processes import children, gone, launch
from scripts.benches.site import WORKER, Site, words

SUPERVISORD = "4.3.0"
PM2 = "7.0.4"
END_WITHIN = 60.0


class NotHere(Exception):
    """Why one of them cannot be measured on this machine."""


class Supervisord:
    """Supervisord, with the very workers of the agent; it watches nothing but a process's end."""

    name = "supervisord"
    version = SUPERVISORD

    def __init__(self, site: Site) -> None:
        self._site = site
        self._program = _install_supervisord()
        self._process: subprocess.Popen[bytes] | None = None

    async def begin(self) -> None:
        self._site.make_runtimes()
        command: list[str | Path] = [self._program, "-n", "-c", _supervisord_file(self._site)]
        env = self._site.environment()
        self._process = launch(command, env, self._site.place, "supervisord.out")

    async def end(self) -> None:
        assert self._process is not None
        workers = children(self.own_pids())
        self._process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._process.wait, END_WITHIN)
        await gone(workers, END_WITHIN)
        self._process = None

    def own_pids(self) -> Sequence[int]:
        return [self._process.pid] if self._process is not None else []

    def link_path(self, id: InstanceId) -> Path:
        return self._site.runtime(id) / "link.sock"


class Pm2:
    """The pm2 daemon in fork mode, asked through its own program as its users do."""

    name = "pm2"
    version = PM2

    def __init__(self, site: Site) -> None:
        self._site = site
        self._program = install_pm2()
        self._home = site.place / "pm2"

    async def begin(self) -> None:
        self._site.make_runtimes()
        apps = [
            {
                "name": id,
                "script": WORKER[0],
                "args": [*WORKER[1:], id],
                "interpreter": "none",
                "exec_mode": "fork",
                "cwd": str(self._site.place),
                "env": self._site.worker_environment(id),
            }
            for id in self._site.ids
        ]
        file = self._site.place / "pm2.config.json"
        file.write_text(json.dumps({"apps": apps}), encoding="utf-8")
        await self._ask("start", str(file))

    async def end(self) -> None:
        own = self.own_pids()
        workers = children(own)
        await self._ask("kill")
        await gone([*workers, *own], END_WITHIN)

    async def _ask(self, *command: str) -> None:
        env = {**self._site.environment(), "PM2_HOME": str(self._home)}
        process = await asyncio.create_subprocess_exec(
            self._program,
            *command,
            env=env,
            cwd=self._site.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"cannot {command[0]} pm2: {said.decode()[-500:]}")

    def own_pids(self) -> Sequence[int]:
        with contextlib.suppress(OSError, ValueError):
            return [int((self._home / "pm2.pid").read_text(encoding="ascii"))]
        return []

    def link_path(self, id: InstanceId) -> Path:
        return self._site.runtime(id) / "link.sock"


def _supervisord_file(site: Site) -> Path:
    name = "i%(process_num)03d"
    each = {"WA_SESSION_ROOT": str(site.sessions), "RUNTIME_DIRECTORY": f"{site.place}/run/{name}"}
    file = site.place / "supervisord.conf"
    file.write_text(
        f"""\
[supervisord]
logfile = {site.place}/supervisord.log
pidfile = {site.place}/supervisord.pid
childlogdir = {site.place}
minfds = 8192

[program:worker]
command = {" ".join(WORKER)} {name}
process_name = {name}
numprocs = {len(site.ids)}
environment = {words(each)}
autorestart = true
stdout_logfile = {site.place}/{name}.log
redirect_stderr = true
stopwaitsecs = 30
""",
        encoding="utf-8",
    )
    return file


def _install_supervisord() -> Path:
    folder = CACHE / f"supervisord-{SUPERVISORD}"
    program = folder / "bin/supervisord"
    if not program.exists():
        _say(f"installing supervisord {SUPERVISORD} into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", folder)
        _run(folder / "bin/pip", "install", "-q", f"supervisor=={SUPERVISORD}")
    return program


def install_pm2() -> Path:
    if shutil.which("npm") is None:
        raise NotHere("pm2: there is no npm on this machine")
    folder = CACHE / f"pm2-{PM2}"
    program = folder / "node_modules/.bin/pm2"
    if not program.exists():
        _say(f"installing pm2 {PM2} into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        quiet = ("--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts")
        _run("npm", "install", *quiet, "--prefix", folder, f"pm2@{PM2}")
    return program


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=TOP,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotHere(f"cannot {command[0]} {command[1]}: {done.stderr.strip()[-300:]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
