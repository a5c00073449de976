"""Backends: servers of other programs, their sessions, and the instances made of these."""

import json
import os
from pathlib import Path

from agent.cli import command
from agent.errors import ConfigError

_COLUMNS = {
    **{"NAME": "name", "ENGINE": "engine", "URL": "url"},
    "UP": lambda row: f"{'yes' if row['up'] else 'no'} since {command.moment(row['since'])}",
    **{"VERSION": "version", "SESSIONS": "sessions"},
    "OURS": lambda row: f"{row['connected']} of {row['held']}",
    **{"CIRCUIT": "circuit", "WHY": "sentence"},
}
_ONE: command.Words = {"BACKEND": "the backend's name"}


def add(commands: command.Commands) -> None:
    among = command.Commands(commands.add("backends", list_backends))
    for name, run in {"show": show, "sessions": sessions, "check": check, "reset": reset}.items():
        among.add(name, run, "evo", words=_ONE)
    example = "evo evolution http://127.0.0.1:8080 --key-file /etc/wa-agent/evo.key"
    among.add("add", add_backend, example, words=_ONE)
    among.add("adopt", adopt, "evo shop-1 --id shop", words=_ONE)


def list_backends(options: command.Options) -> int:
    """List the backends."""
    return options.print_list("/api/backends", _COLUMNS, "no backends: wa-agent backends add")


def add_backend(options: command.Options) -> int:
    """Add a backend to agent.toml; it is in force at once.

    ENGINE: kind of server
    address=URL: the server's address
    --key-file FILE: file that holds only the server's key
    --adopt NAME…: sessions that become instances; '*' = all
    --config FILE: agent.toml
    """
    from agent.config import config, load

    path, agent = options.reader("add a backend")
    values = {"name": options.backend, "engine": options.engine, "url": options.address}
    if options.key_file:
        values["key_file"] = str(Path(options.key_file).absolute())
        try:
            config.read_secret(values["key_file"], "--key-file", "key_file", config.key_fault)
        except ConfigError as error:
            # A file that only the agent may read is left to it.
            if not isinstance(error.__cause__, PermissionError):
                raise
    wanted = {**values, "adopt": options.adopt} if options.adopt else values
    keys = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in wanted.items())
    lines = "\n".join(["[[backend]]", *keys, ""])
    load.add_rows(path, lines, env=os.environ, what=f"add backend {options.backend} to")
    agent.request("POST", "/api/reload")
    done = f"{options.backend} is added; how it is: wa-agent backends check {options.backend}"
    return options.print(wanted, done)


def show(options: command.Options) -> int:
    """Show everything about a backend."""
    backend = options.ask(f"GET /api/backends/{options.backend}")
    return options.print(backend, command.Table([backend], _COLUMNS))


def sessions(options: command.Options) -> int:
    """List a backend's sessions and the instances made of them."""
    answer = options.ask(f"GET /api/backends/{options.backend}/sessions", wait=300)
    rows = [*answer["sessions"], *({**gone, "status": "missing"} for gone in answer["missing"])]
    columns = {"REMOTE": "remote", "NAME": "title", "STATUS": "status", "ACCOUNT": "account"}
    table = command.Table(rows, {**columns, "INSTANCE": "instance"})
    return options.print(answer, table if rows else f"{options.backend} has no sessions")


def adopt(options: command.Options) -> int:
    """Make an instance of a backend's session.

    REMOTE: the session's id or name on the server
    --id ID: the instance's id; default: made from REMOTE
    """
    asked, body = f"POST /api/backends/{options.backend}/adopt", options.given("remote", "id")
    return options.do(asked, "{id} is {remote} on {backend}", body, wait=300)


def check(options: command.Options) -> int:
    """Check a backend's server now; exit status 1 when it is down."""
    backend = options.ask(f"POST /api/backends/{options.backend}/check", wait=300)
    return options.print(backend, command.Table([backend], _COLUMNS), good=backend["up"])


def reset(options: command.Options) -> int:
    """Close a backend's circuit, so that its sessions try again at once."""
    return options.do(f"POST /api/backends/{options.backend}/reset", "{name}: circuit {circuit}")
