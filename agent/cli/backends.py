"""Backends: servers of other programs, their sessions, and the instances made of these."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from agent.cli.client import NO_CONFIG, config_path
from agent.cli.command import Subparsers, Words, add_command, client_of, name_of_a
from agent.cli.session import TO_THE_END
from agent.cli.terminal import Columns, clean, list_of, moment, print_answer, table_of
from agent.core.model import parse_instance_id
from agent.errors import ConfigError, InvalidRequest

_SECONDS = 150.0
"""A server may take as long as its `timeout`; the agent answers when that is over."""
_COLUMNS: Columns = {
    **{"NAME": "name", "ENGINE": "engine", "URL": "url"},
    "UP": lambda its: f"{'yes' if its['up'] else 'no'} since {moment(its['since'])}",
    **{"VERSION": "version", "SESSIONS": "sessions"},
    "OURS": lambda its: f"{its['connected']} of {its['held']}",
    **{"CIRCUIT": "circuit", "WHY": "sentence"},
}
_ONE: Words = {"BACKEND": ("the backend's name", {"type": name_of_a("backend")})}
_ADD: Words = {
    **_ONE,
    "ENGINE": "kind of server",
    "address=URL": "the server's address",
    "--key-file FILE": "file that holds only the server's key",
    "--adopt NAME": ("sessions that become instances; '*' = all", {"action": "append"}),
    "--config FILE": "agent.toml",
}
_ADOPT: Words = {
    **_ONE,
    "REMOTE": "the session's id or name on the server",
    "--id ID": (
        "the instance's id; default: made from REMOTE",
        {"dest": "wanted", "type": parse_instance_id},
    ),
}


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "backends", list_backends)
    among = parser.add_subparsers(metavar="COMMAND", required=False)
    for name, run in {"show": show, "sessions": sessions, "check": check, "reset": reset}.items():
        add_command(among, name, run, example="evo", words=_ONE)
    example = "evo evolution http://127.0.0.1:8080 --key-file /etc/wa-agent/evo.key"
    add_command(among, "add", add_backend, example=example, words=_ADD)
    add_command(among, "adopt", adopt, example="evo shop-1 --id shop", words=_ADOPT)


def list_backends(options: argparse.Namespace) -> int:
    """List the backends."""
    nothing = "no backends: `wa-agent backends add` makes one"
    return list_of(options, "/api/backends", _COLUMNS, nothing)


def _print(options: argparse.Namespace, backend: dict[str, Any], *, good: bool = True) -> int:
    return print_answer(options, backend, table_of([backend], _COLUMNS), good=good)


def add_backend(options: argparse.Namespace) -> int:
    """Add a backend to agent.toml; it is in force at once."""
    from agent.config.declaration import key_fault, read_secret
    from agent.config.load import add_rows

    path = config_path(options.config, os.environ)
    if path is None:
        raise InvalidRequest(f"cannot add a backend: {NO_CONFIG}", field="config")
    values = {"name": options.backend, "engine": options.engine, "url": options.address}
    if options.key_file:
        values["key_file"] = str(Path(options.key_file).absolute())
        try:
            read_secret(values["key_file"], "--key-file", "key_file", key_fault)
        except ConfigError as error:
            # A file that only the agent may read is left to it.
            if not isinstance(error.__cause__, PermissionError):
                raise
    wanted = {**values, "adopt": options.adopt} if options.adopt else values
    keys = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in wanted.items())
    lines = "\n".join(["[[backend]]", *keys, ""])
    client, doing = client_of(options), f"add backend {options.backend} to"
    add_rows(path, lines, env=os.environ, what=doing)
    client.post("/api/reload")
    done = f"{options.backend} is added; how it is: wa-agent backends check {options.backend}"
    return print_answer(options, wanted, done)


def show(options: argparse.Namespace) -> int:
    """Show everything about a backend."""
    backend = client_of(options).get(f"/api/backends/{options.backend}")
    return _print(options, backend)


def sessions(options: argparse.Namespace) -> int:
    """List a backend's sessions and the instances made of them."""
    path = f"/api/backends/{options.backend}/sessions{TO_THE_END}"
    answer = client_of(options).get(path, seconds=_SECONDS)
    rows = [*answer["sessions"], *({**gone, "status": "missing"} for gone in answer["missing"])]
    columns = {"REMOTE": "remote", "NAME": "title", "STATUS": "status", "ACCOUNT": "account"}
    table = table_of(rows, {**columns, "INSTANCE": "instance"})
    return print_answer(options, answer, table if rows else f"{options.backend} has no sessions")


def adopt(options: argparse.Namespace) -> int:
    """Make an instance of a backend's session."""
    body = {"remote": options.remote, **({"id": options.wanted} if options.wanted else {})}
    path = f"/api/backends/{options.backend}/adopt{TO_THE_END}"
    made = client_of(options).post(path, body, _SECONDS)
    words = f"{made['id']} is {clean(made['remote'])} on {made['backend']}"
    return print_answer(options, made, words)


def check(options: argparse.Namespace) -> int:
    """Check a backend's server now; exit status 1 when it is down."""
    path = f"/api/backends/{options.backend}/check{TO_THE_END}"
    backend = client_of(options).post(path, seconds=_SECONDS)
    return _print(options, backend, good=backend["up"])


def reset(options: argparse.Namespace) -> int:
    """Close a backend's circuit, so that its sessions try again at once."""
    backend = client_of(options).post(f"/api/backends/{options.backend}/reset")
    done = f"the circuit of {backend['name']} is {backend['circuit']}"
    return print_answer(options, backend, done)
