"""usage: scripts/auto-fix-sessions.sh all|ID

Read what a whaticket server has logged since the last run, and renew the keys of the sessions that
cannot decrypt messages. For cron, containers and CI; needs Python 3.11 and `pip install wa-agent`.
If a wa-agent answers on this machine, it does the work: the arguments go to `wa-agent repair`,
which also knows --debug and --dry-run.
  all|ID           every session, or the one with this id

A session with THRESHOLD errors within WINDOW seconds is disconnected. Once it is down, the key
records of the failing peers are backed up in STATE_DIR/removed, for seven days, and removed, from
files and from Redis; if the log names no peer, the records that Baileys cannot use. Creds and app
state keys stay, and so does the pairing. Then the session is started, and the run waits until it is
connected. If there is no record to remove, the session is not interrupted and the run fails. `all`
leaves a session alone that was disconnected at the server; its ID repairs and starts it. A session
that a killed run left down is started by the next run.

Environment variables, with their defaults:
  BACKEND_URL=http://127.0.0.1:8080
  BACKEND_TOKEN (or BACKEND_TOKEN_FILE), or BACKEND_USER and BACKEND_PASSWORD (or
                   BACKEND_PASSWORD_FILE)
  CA_FILE          certificates to trust instead of this machine's
  TIMEOUT=10       seconds for one request
  LOG_FILE         the server's log, or one log for each session: /path/{id}.log
  LOG_SESSION      regular expression whose one group, or the word after it, is the session that a
                   log line names
  SESSIONS_DIR     the auth folders: /path/{id}, or the folder that holds them
  REDIS_URL        redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://, unix:///path?db=0
  REDIS_PATTERN=sessions:{id}:*
  THRESHOLD=5      errors          WINDOW=300      seconds
  DISCONNECT_ROUTE='PUT /whatsapp/{id}/disconnect'  must keep the pairing; in most public forks it
                   does not
  START_ROUTE='PUT /whatsapp/{id}/start-session'    STATE_ROUTE='GET /whatsapp/{id}'
  LIST_ROUTE='GET /whatsapp/'                       LOGIN_ROUTE='POST /auth/login'
  AUDIT_LOG=logs/auto-fix-sessions.log
  STATE_DIR        what the next run needs: auto-fix-sessions beside AUDIT_LOG by default
  WA_AGENT_SOCKET=/run/wa-agent/api.sock
  PYTHON           the Python to use; by default the first one that has wa-agent
Exit status: 0 done, 1 failed, 2 wrong arguments, 3 not found, 4 refused, 5 server not reachable,
75 another run is active, or this one was interrupted, 78 wrong configuration.
"""

import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent import files, logfiles
from agent.backends.http import ServerDown, naming, read_json
from agent.backends.whaticket.calls import NOTHING, DownAndUp, Owners, WhaticketCalls
from agent.backends.whaticket.contract import BackendSettings, is_safe
from agent.backends.whaticket.keys import SessionKeys, open_keys
from agent.backends.whaticket.logs import open_logs
from agent.config.config import BackendDeclaration, with_secrets
from agent.core import crypto, crypto_patterns, model
from agent.core.setting import read_value, settings_of
from agent.engines import catalog, tasks
from agent.errors import ConfigError, InvalidRequest, WaError, cause_of
from agent.log import about

log = logging.getLogger(__name__)

_SAME = "ca_file timeout window log_session redis_url redis_pattern list_route login_route"
VARIABLES = {name: name.upper() for name in f"{_SAME} state_route start_route".split()}
VARIABLES |= {name: f"BACKEND_{name.upper()}" for name in ("user", "password", "password_file")}
VARIABLES |= {"url": "BACKEND_URL", "key": "BACKEND_TOKEN", "key_file": "BACKEND_TOKEN_FILE"}
VARIABLES |= {"disconnect_route": "DISCONNECT_ROUTE", "logs": "LOG_FILE", "errors": "THRESHOLD"}
VARIABLES |= {"auth_folder": "SESSIONS_DIR"}
"""Setting → its variable."""


def main(argv: list[str], env: Mapping[str, str]) -> int:
    """Make one round; return the exit status."""
    try:
        if len(argv) != 1 or not is_safe(argv[0]):
            cause = "without an agent a run takes all or one ID; see --help"
            raise InvalidRequest(f"cannot understand {' '.join(argv)!r:.80}: {cause}")
        return asyncio.run(_run(argv[0], env))
    except (WaError, OSError) as error:
        words = str(error) if isinstance(error, WaError) else f"cannot run: {cause_of(error)}"
        sys.stderr.write(f"auto-fix-sessions: {words}\n")
        return getattr(error, "exit_status", ConfigError.exit_status)


async def _run(wanted: str, env: Mapping[str, str]) -> int:
    declared, policy = read_settings(env)
    audit = Path(env.get("AUDIT_LOG") or "logs/auto-fix-sessions.log").absolute()
    folder = Path(env.get("STATE_DIR") or audit.parent / "auto-fix-sessions").absolute()
    audit.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.addHandler(logfiles.FileWriter(audit, "text", max_bytes=10 << 20, keep=1))
    log.setLevel(logging.INFO)
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.append, number)
    sentences, status = await run_round(declared, folder, wanted, policy, interrupted)
    print(*sentences, sep="\n")
    return status


def read_settings(env: Mapping[str, str]) -> tuple[BackendDeclaration, crypto.CryptoPolicy]:
    """Read the settings; ConfigError names the variable that cannot be used."""
    given = {name: env[it] for name, it in VARIABLES.items() if env.get(it)}
    if "logs" not in given:
        raise ConfigError("LOG_FILE is not set: where are the server's errors?")
    for name in {"key_file", "password_file", "ca_file", "logs", "auth_folder"} & given.keys():
        given[name] = str(Path(given[name]).absolute())
    given["logs"] = "file:" + given["logs"].replace("{id}", "*")
    if "{id}" not in given.get("auth_folder", "{id}"):
        given["auth_folder"] += "/{id}"
    if "(" not in given.get("log_session", "("):
        given["log_session"] += "([A-Za-z0-9_][A-Za-z0-9_.-]*)"
    own = _applied(BackendSettings(disconnect_keeps_pairing=True), given)
    plain = BackendDeclaration("auto-fix-sessions", "whaticket", "http://127.0.0.1:8080", own=own)
    declared = _applied(plain, given)
    for keys, cause in catalog.backend_faults(declared):
        names = " or ".join(VARIABLES[key] for key in keys)
        raise ConfigError(f"cannot ask the server by {names}: {cause}")
    return with_secrets(declared), _applied(crypto.CryptoPolicy(), given)


def _applied(table: Any, given: Mapping[str, Any]) -> Any:
    for each, mark in settings_of(table):
        if each.name in given:
            value, default = given[each.name], getattr(table, each.name)
            with suppress(ValueError):  # a text, then, which is refused
                value = type(default)(value) if isinstance(default, int | float) else value
            try:
                value = read_value([value] if isinstance(default, tuple) else value, default, mark)
            except ValueError as error:
                raise ConfigError(f"cannot use {VARIABLES[each.name]}: {error}") from None
            table = replace(table, **{each.name: value})
    return table


BUSY, BAD_STATE = 75, 78
MOST = 16 << 20
"""Bytes of the logs that one round reads."""
REACH = 600.0
"""Seconds before the window in which errors still count: the last round may have read the first
ones of a window."""
_BY_REASON = {"unreachable": 5, "timeout": 5, "tls": 5, "refused_key": 4, "not_found": 3}


async def run_round(
    declared: BackendDeclaration,
    folder: Path,
    wanted: str,
    policy: crypto.CryptoPolicy,
    interrupted: Sequence[int] = (),
) -> tuple[list[str], int]:
    """The sentences of what was done, and an exit status: 0 done, 1 failed, 3 not found, 4 refused,
    5 server not reachable, 75 another round runs or this one was interrupted. `wanted`: "all", or
    the server's id of a session. `interrupted`: not empty = begin with no further session."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    calls = WhaticketCalls(declared)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = folder / "round.json"
        if not (state := read_json(path)) and path.exists():
            cause = "it names what a round took down: look whether each session is connected"
            return [f"cannot read {path}, which is damaged; {cause}, and remove it"], BAD_STATE
        round = Round(path, calls, open_keys(declared, folder / "removed"), policy, **state)
        if await round.read():
            await round.repair(wanted, interrupted)
        return round.sentences or ["nothing needs a repair"], round.status
    except BlockingIOError:
        return ["another round runs; try again later"], BUSY
    finally:
        await calls.close()
        os.close(fd)


@dataclass(slots=True)
class Round:
    path: Path
    calls: WhaticketCalls
    keys: SessionKeys
    policy: crypto.CryptoPolicy
    marks: dict[str, Any] = field(default_factory=dict)
    errors: list[list[Any]] = field(default_factory=list)
    """Rows of Unix time, session, the pattern's name and effect, and the peer."""
    down: dict[str, list[str]] = field(default_factory=dict)
    """Session that a round took down → the peers whose keys were to go."""
    sentences: list[str] = field(default_factory=list)
    status: int = 0

    def save(self) -> None:
        state = {"marks": self.marks, "errors": self.errors, "down": self.down}
        with naming(f"write {self.path}"):  # an EngineError keeps no session down
            files.write_whole(self.path, json.dumps(state).encode())

    def say(self, id: str, text: str, level: int = logging.INFO) -> None:
        self.sentences.append(f"{id}: {text}" if id else text)
        log.log(level, "%s", text, extra=about(id, model.Category.RECOVERY))

    async def read(self) -> bool:
        """Read the logs on, and find whose each error is. False: the server does not answer, and
        the logs wait for it."""
        owners = Owners()
        try:
            rows, _ = await self.calls.rows()
        except ServerDown as down:
            self._failed("", down)
            return False
        owners.know({row.id: row.name for row in rows})
        logs = open_logs(self.calls.own, (), self.marks, 0 if self.marks else MOST)
        found = await tasks.in_thread(logs.read, MOST, ends=True)
        for id, one in owners.attribute(found):
            if isinstance(it := one.it, crypto_patterns.CryptoFinding):
                self.errors.append([one.at, id, it.name, str(it.effect), it.peer])
        named = [error for error in self.errors if error[1]]
        for text in (*logs.lost, *filter(None, [logs.trouble])):
            self.say("", text, logging.WARNING)
        if self.errors and not named:
            text = f"{len(self.errors)} errors about keys name no session: set log_session"
            self.say("", text, logging.WARNING)
            self.status = 1
        since = time.time() - self.policy.window - REACH
        self.errors = sorted(error for error in named if error[0] > since)
        self.marks = logs.positions()
        logs.close()
        self.save()
        return True

    async def repair(self, wanted: str, interrupted: Sequence[int]) -> None:
        if wanted != "all" and wanted not in self.down:
            try:
                await self.calls.look(wanted)
            except WaError as error:
                self._failed(wanted, error)
                return
        for id in sorted({*self.down, *(error[1] for error in self.errors)}):
            peers = self._due(id)
            if interrupted:
                self.status = BUSY
                return
            if wanted in ("all", id) and (peers is not None or id in self.down):
                try:
                    await self._repair(id, peers or [], by_name=wanted == id)
                except WaError as error:
                    self._failed(id, error)

    def _due(self, id: str) -> list[str] | None:
        """Return the peers whose keys are to go, "" for an unknown one; None: too few errors."""
        window = crypto.CryptoWindow()
        own = [error for error in self.errors if error[1] == id]
        for at, _, name, effect, peer in own:
            finding = crypto_patterns.CryptoFinding(name, crypto_patterns.Effect(effect), peer)
            window = crypto.note_error(window, finding, self.policy, at)
            if len(window.errors) >= self.policy.errors:
                return sorted({error[4] for error in own})
        return None

    async def _repair(self, id: str, peers: list[str], *, by_name: bool) -> None:
        row, before = await self.calls.look(id), self.down.get(id)
        if before is None and not by_name and row.status.upper() == "DISCONNECTED":
            self.say(id, "left as it is, for it was disconnected at the server")
            return
        peers = before or peers

        def went_down() -> None:
            self.down[id] = peers
            self.save()

        report = partial(log.info, "%s", extra=about(id, model.Category.RECOVERY))
        way = DownAndUp(self.calls, self.keys, id, report, went_down)
        try:
            await way.regenerate([peer for peer in peers if peer], damaged="" in peers)
        except WaError as error:
            if before is None or error.code != NOTHING:
                raise
            await way.come_up()  # the killed round took them out
        self.down.pop(id, None)
        self.errors = [error for error in self.errors if error[1] != id]
        self.save()
        self.say(id, "recovered")

    def _failed(self, id: str, error: WaError) -> None:
        person = error.code == "pairing_lost"
        text = "needs a person: scan its code" if person else str(error)
        self.say(id if person else "", text, logging.WARNING)
        if person or error.code == "remote_missing":
            self.down.pop(id, None)
            self.save()
        by_code = 3 if error.code == "remote_missing" else 1
        self.status = _BY_REASON.get(getattr(error, "reason", ""), by_code)


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv}:
        print(__doc__)
    else:
        sys.exit(main(sys.argv[1:], os.environ))
