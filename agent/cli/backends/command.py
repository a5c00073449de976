"""Backends: servers of other programs, their sessions, and the instances made of these."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from agent.cli.command import Subparsers, add_command, client_of, instance_id, name_of_a
from agent.cli.paths import config_path
from agent.cli.sessions.repair_round import TO_THE_END
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.show import moment, pair_lines, table_lines
from agent.errors import ConfigError, InvalidRequest

_SECONDS = 150.0
"""A server may take as long as its `timeout`; the agent answers when that is over."""
VERBS = ("list", "show", "add", "sessions", "adopt", "check", "reset")
_WITH_VALUE = ("--socket", "--url", "--key")


def add(commands: Subparsers) -> None:
    summary = "list the backends, or show one"
    parser = add_command(commands, "backends", list_backends, summary, "evo")
    among = parser.add_subparsers(metavar="COMMAND|NAME", required=False)
    parser = add_command(among, "list", list_backends, "list the backends")
    _add(among, "show", show, "show everything about a backend", "evo")
    summary = "add a backend to agent.toml; it is in force at once"
    arguments = "evo evolution http://127.0.0.1:8080 --key-file /etc/wa-agent/evo.key"
    parser = _add(among, "add", add_backend, summary, arguments)
    parser.add_argument("engine", metavar="ENGINE", help="kind of server")
    parser.add_argument("address", metavar="URL", help="the server's address")
    parser.add_argument("--key-file", metavar="FILE", help="file that holds only the server's key")
    parser.add_argument(
        "--adopt", metavar="NAME", action="append", help="sessions that become instances; '*' = all"
    )
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    _add(among, "sessions", sessions, "list a backend's sessions and the instances made of them")
    summary = "make an instance of a backend's session"
    parser = _add(among, "adopt", adopt, summary, "evo shop-1 --id shop")
    parser.add_argument("remote", metavar="REMOTE", help="the session's id or name on the server")
    parser.add_argument(
        "--id",
        dest="wanted",
        type=instance_id,
        metavar="ID",
        help="the instance's id; default: made from REMOTE",
    )
    _add(among, "check", check, "check a backend's server now; exit status 1 when it is down")
    _add(among, "reset", reset, "close a backend's circuit, so that its sessions try again at once")


def _add(
    among: Subparsers, name: str, run: Any, summary: str, arguments: str = "evo"
) -> argparse.ArgumentParser:
    parser = add_command(among, name, run, summary, arguments)
    name_type = name_of_a("backend")
    parser.add_argument("backend", metavar="BACKEND", type=name_type, help="the backend's name")
    return parser


def spelled_out(argv: list[str]) -> list[str]:
    """`backends NAME` is short for `backends show NAME`, which argparse cannot express."""
    command = _next_word(argv, 0)
    if command is None or argv[command] != "backends":
        return argv
    word = _next_word(argv, command + 1)
    if word is None or argv[word] in VERBS:
        return argv
    return [*argv[:word], "show", *argv[word:]]


def _next_word(argv: list[str], index: int) -> int | None:
    """The index of the next word that is neither an option nor an option's value."""
    while index < len(argv):
        if not argv[index].startswith("-"):
            return index
        index += 2 if argv[index] in _WITH_VALUE else 1
    return None


def list_backends(options: argparse.Namespace) -> int:
    return print_list(
        options,
        client_of(options).get("/api/backends")["backends"],
        ("NAME", "ENGINE", "URL", "UP", "VERSION", "SESSIONS", "OURS", "CIRCUIT", "WHY"),
        lambda backend: (
            backend["name"],
            backend["engine"],
            backend["url"],
            "yes" if backend["up"] else "no",
            backend["version"] or "-",
            "-" if backend["sessions"] is None else backend["sessions"],
            f"{backend['connected']} of {backend['held']}",
            backend["circuit"],
            backend["sentence"],
        ),
        nothing="no backends: `wa-agent backends add` makes one",
    )


def add_backend(options: argparse.Namespace) -> int:
    from agent.config.declaration import key_fault, read_secret
    from agent.config.settings_file import change_rows, with_rows

    path = config_path(options.config, os.environ)
    if path is None:
        raise InvalidRequest("cannot add a backend: --config names agent.toml", field="config")
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
    change_rows(path, lambda old: with_rows(old, "backend", [wanted], lines), os.environ, doing)
    client.post("/api/reload")
    done = f"{options.backend} is added; how it is: wa-agent backends {options.backend}"
    return print_answer(options, wanted, done)


def show(options: argparse.Namespace) -> int:
    backend = client_of(options).get(f"/api/backends/{options.backend}")
    return print_answer(options, backend, *_lines(backend))


def _lines(backend: dict[str, Any]) -> list[str]:
    state = "up" if backend["up"] else f"not up ({backend['reason'] or 'unknown'})"
    total = backend["sessions"]
    sessions = "number of sessions unknown" if total is None else f"{total} on the server"
    return pair_lines(
        {
            "name": backend["name"],
            "engine": backend["engine"],
            "url": backend["url"],
            "state": f"{state} since {moment(backend['since'])}",
            "why": backend["sentence"] or "-",
            "version": backend["version"] or "-",
            "answered in": f"{backend['answer_seconds']:.3f} s",
            "sessions": f"{sessions}, {backend['held']} ours, {backend['connected']} connected",
            "circuit": backend["circuit"],
            "checked": moment(backend["checked"]),
            "next check": moment(backend["next_check"]),
        }
    )


def sessions(options: argparse.Namespace) -> int:
    path = f"/api/backends/{options.backend}/sessions{TO_THE_END}"
    answer = client_of(options).get(path, seconds=_SECONDS)
    keys = ("remote", "title", "status", "account", "instance")
    rows = [tuple(session.get(key) or "-" for key in keys) for session in answer["sessions"]]
    rows += [(gone["remote"], "-", "missing", "-", gone["instance"]) for gone in answer["missing"]]
    table = table_lines(("REMOTE", "NAME", "STATUS", "ACCOUNT", "INSTANCE"), rows)
    return print_answer(
        options, answer, *(table if rows else [f"{options.backend} has no sessions"])
    )


def adopt(options: argparse.Namespace) -> int:
    body = {"remote": options.remote, **({"id": options.wanted} if options.wanted else {})}
    path = f"/api/backends/{options.backend}/adopt{TO_THE_END}"
    made = client_of(options).post(path, body, _SECONDS)
    return print_answer(options, made, f"{made['id']} is {made['remote']} on {made['backend']}")


def check(options: argparse.Namespace) -> int:
    path = f"/api/backends/{options.backend}/check{TO_THE_END}"
    backend = client_of(options).post(path, seconds=_SECONDS)
    return print_answer(options, backend, *_lines(backend), good=backend["up"])


def reset(options: argparse.Namespace) -> int:
    backend = client_of(options).post(f"/api/backends/{options.backend}/reset")
    done = f"the circuit of {backend['name']} is {backend['circuit']}"
    return print_answer(options, backend, done)
