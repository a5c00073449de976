"""usage: scripts/auto-fix-sessions.sh all|ID

Read what a whaticket server has logged since the last run, and renew the keys of the sessions that
cannot decrypt messages. For cron, containers and CI; needs Python 3.11 and `pip install wa-agent`.
If a wa-agent answers on this machine, it does the work: the arguments go to `wa-agent repair`,
which also knows --debug, --dry-run and --stats.
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
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.backends.whaticket.contract import BackendSettings, is_safe
from agent.backends.whaticket.round import run_round
from agent.config.declaration import BackendDeclaration, with_secrets
from agent.core.findings.crypto_window import CryptoPolicy
from agent.core.setting import read_value, settings_of
from agent.engines.catalog import backend_faults
from agent.errors import ConfigError, InvalidRequest, WaError

_SAME = "ca_file timeout window log_session redis_url redis_pattern list_route login_route"
VARIABLES = {name: name.upper() for name in f"{_SAME} state_route start_route".split()}
VARIABLES |= {name: f"BACKEND_{name.upper()}" for name in ("user", "password", "password_file")}
VARIABLES |= {"url": "BACKEND_URL", "key": "BACKEND_TOKEN", "key_file": "BACKEND_TOKEN_FILE"}
VARIABLES |= {"disconnect_route": "DISCONNECT_ROUTE", "logs": "LOG_FILE", "errors": "THRESHOLD"}
VARIABLES |= {"auth_folder": "SESSIONS_DIR"}
"""The variable of each setting."""
GONE = "WAIT POLL TRIES PAUSE LOG_ZONE MAX_READ BACKUP_DIR KEEP_DAYS"


def main(argv: list[str], env: Mapping[str, str]) -> int:
    """The exit status."""
    try:
        if len(argv) != 1 or not is_safe(argv[0]):
            cause = "without an agent a run takes all or one ID; see --help"
            raise InvalidRequest(f"cannot understand {' '.join(argv)!r:.80}: {cause}")
        return asyncio.run(_run(argv[0], env))
    except (WaError, OSError) as error:
        words = str(error) if isinstance(error, WaError) else f"cannot run: {error}"
        sys.stderr.write(f"auto-fix-sessions: {words}\n")
        return getattr(error, "exit_status", ConfigError.exit_status)


async def _run(wanted: str, env: Mapping[str, str]) -> int:
    declared, policy = read_settings(env)
    audit = Path(env.get("AUDIT_LOG") or "logs/auto-fix-sessions.log").absolute()
    folder = Path(env.get("STATE_DIR") or audit.parent / "auto-fix-sessions").absolute()
    audit.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with audit.open("a") as file:
        if file.tell() > 10 << 20:
            audit.replace(f"{audit}.1")

    def note(level: str, id: str, text: str) -> None:
        line = f"[{time.strftime('%F %T')}] [{level}] [RECOVERY]{f' [{id}]' * bool(id)} {text}\n"
        with suppress(OSError), audit.open("a", encoding="utf-8") as file:
            file.write(line)  # no full disk keeps a session down

    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.append, number)
    sentences, status = await run_round(
        declared, folder, wanted, policy, note=note, stop=lambda: bool(interrupted)
    )
    print(*sentences, sep="\n")
    return status


def read_settings(env: Mapping[str, str]) -> tuple[BackendDeclaration, CryptoPolicy]:
    """ConfigError names the variable that cannot be used."""
    given = {name: env[it] for name, it in VARIABLES.items() if env.get(it)}
    for name in filter(env.get, GONE.split()):
        sys.stderr.write(f"auto-fix-sessions: {name} has no effect; see --help\n")
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
    for keys, cause in backend_faults(declared):
        names = " or ".join(VARIABLES[key] for key in keys)
        raise ConfigError(f"cannot ask the server by {names}: {cause}")
    return with_secrets(declared), _applied(CryptoPolicy(), given)


def _applied(table: Any, given: Mapping[str, Any]) -> Any:
    for field, mark in settings_of(table):
        default, value = getattr(table, field.name), given.get(field.name)
        with suppress(ValueError):  # a text, then, which is refused
            value = type(default)(value) if isinstance(default, int | float) and value else value
        try:
            if value is not None:
                value = [value] if isinstance(default, tuple) else value
                table = replace(table, **{field.name: read_value(value, default, mark)})
        except ValueError as error:
            raise ConfigError(f"cannot use {VARIABLES[field.name]}: {error}") from None
    return table


if __name__ == "__main__":
    help = {"-h", "--help"} & {*sys.argv}
    sys.exit(print(__doc__) if help else main(sys.argv[1:], os.environ))
