"""Backends: servers of other programs, their sessions, and the instances made of these."""

import argparse
import os
import sys
from typing import Any

from agent.cli.command import Subparsers, add_command, client_of, instance_id, wants_json
from agent.cli.places import config_path
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.show import moment, print_json, print_pairs, print_table
from agent.core.model import parse_instance_id
from agent.errors import InvalidRequest, NotFound

_SECONDS = 150.0
"""A server may take as long as its `timeout` says; the agent tells when it is over."""
VERBS = ("list", "show", "sessions", "adopt", "check", "reset", "drop-in")
_WITH_VALUE = ("--socket", "--url", "--key")


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands, "backends", list_backends, "list the backends, or show one",
        "wa-agent backends evo",
    )  # fmt: skip
    among = parser.add_subparsers(metavar="COMMAND|NAME", required=False)
    parser = add_command(
        among, "list", list_backends, "list the backends", "wa-agent backends list"
    )
    parser.add_argument("--names", action="store_true", help="print only the names")
    _add(among, "show", show, "show everything about a backend", "wa-agent backends show evo")
    _add(
        among, "sessions", sessions, "list a backend's sessions and the instances made of them",
        "wa-agent backends sessions evo",
    )  # fmt: skip
    parser = _add(
        among, "adopt", adopt, "make an instance of a backend's session",
        "wa-agent backends adopt evo shop-1 --id shop",
    )  # fmt: skip
    parser.add_argument("remote", metavar="REMOTE", help="the session's id or name on the server")
    parser.add_argument(
        "--id",
        dest="wanted",
        type=instance_id,
        metavar="ID",
        help="the instance's id; default: made from REMOTE",
    )
    _add(
        among, "check", check, "check a backend's server now; exit status 1 when it is down",
        "wa-agent backends check evo",
    )  # fmt: skip
    _add(
        among, "reset", reset, "close a backend's circuit, so that its sessions try again at once",
        "wa-agent backends reset evo",
    )  # fmt: skip
    parser = _add(
        among, "drop-in", drop_in,
        "print a systemd drop-in with the rights that a backend's worker needs",
        "wa-agent backends drop-in desk > reach.conf",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="agent.toml")


def _add(
    among: Subparsers, name: str, run: Any, summary: str, example: str
) -> argparse.ArgumentParser:
    parser = add_command(among, name, run, summary, example)
    parser.add_argument("backend", metavar="BACKEND", type=backend_name, help="the backend's name")
    return parser


def backend_name(text: str) -> str:
    try:
        return parse_instance_id(text)
    except InvalidRequest:
        raise argparse.ArgumentTypeError(
            f"cannot use {text!r:.80} as the name of a backend"
        ) from None


def spelled_out(argv: list[str]) -> list[str]:
    """`backends NAME` is short for `backends show NAME`; argparse cannot say that by itself."""
    place = _next_word(argv, 0)
    if place is None or argv[place] != "backends":
        return argv
    word = _next_word(argv, place + 1)
    if word is None or argv[word] in VERBS:
        return argv
    return [*argv[:word], "show", *argv[word:]]


def _next_word(argv: list[str], place: int) -> int | None:
    """Where the next word stands that is no option and no option's value."""
    while place < len(argv):
        if not argv[place].startswith("-"):
            return place
        place += 2 if argv[place] in _WITH_VALUE else 1
    return None


def list_backends(options: argparse.Namespace) -> int:
    found = client_of(options).get("/api/backends")["backends"]
    print_list(
        options,
        found,
        ("NAME", "ENGINE", "URL", "UP", "VERSION", "SESSIONS", "OURS", "CIRCUIT", "WHY"),
        _row,
        nothing="no backends: [[backend]] in agent.toml names them",
        bare="name" if getattr(options, "names", False) else "",
    )
    return 0


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        one["name"],
        one["engine"],
        one["url"],
        "yes" if one["up"] else "no",
        one["version"] or "-",
        "-" if one["sessions"] is None else one["sessions"],
        f"{one['connected']} of {one['held']}",
        one["circuit"],
        one["sentence"],
    )


def show(options: argparse.Namespace) -> int:
    found = client_of(options).get(f"/api/backends/{options.backend}")
    if wants_json(options):
        print_json(found)
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    state = "up" if found["up"] else f"not up ({found['reason'] or 'unknown'})"
    there = (
        "number of sessions unknown" if found["sessions"] is None else f"{found['sessions']} there"
    )
    print_pairs(
        {
            "name": found["name"],
            "engine": found["engine"],
            "url": found["url"],
            "state": f"{state} since {moment(found['since'])}",
            "why": found["sentence"] or "-",
            "version": found["version"] or "-",
            "answered in": f"{found['answer_seconds']:.3f} s",
            "worker": f"{found['worker']}, pid {found['pid'] or '-'}",
            "sessions": f"{there}, {found['held']} ours, {found['connected']} connected",
            "circuit": found["circuit"],
            "checked": moment(found["checked"]),
            "next check": moment(found["next_check"]),
        }
    )


def sessions(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/backends/{options.backend}/sessions"
    found = client.request("GET", path, seconds=_SECONDS).json()
    if wants_json(options):
        print_json(found)
        return 0
    keys = ("remote", "title", "status", "account", "instance")
    rows = [tuple(one.get(key) or "-" for key in keys) for one in found["sessions"]]
    rows += [(one["remote"], "-", "not there", "-", one["instance"]) for one in found["missing"]]
    if rows:
        print_table(("REMOTE", "NAME", "STATUS", "ACCOUNT", "INSTANCE"), rows)
    else:
        print(f"{options.backend} has no sessions")
    return 0


def adopt(options: argparse.Namespace) -> int:
    body = {"remote": options.remote, **({"id": options.wanted} if options.wanted else {})}
    path = f"/api/backends/{options.backend}/adopt"
    made = client_of(options).request("POST", path, body=body, seconds=_SECONDS).json()
    if wants_json(options):
        print_json(made)
    else:
        print(f"{made['id']} is {made['remote']} on {made['backend']}")
    return 0


def check(options: argparse.Namespace) -> int:
    path = f"/api/backends/{options.backend}/check"
    found = client_of(options).request("POST", path, seconds=_SECONDS).json()
    if wants_json(options):
        print_json(found)
    else:
        _print(found)
    return 0 if found["up"] else 1


def reset(options: argparse.Namespace) -> int:
    found = client_of(options).request("POST", f"/api/backends/{options.backend}/reset").json()
    if wants_json(options):
        print_json(found)
    else:
        print(f"the circuit of {found['name']} is {found['circuit']}")
    return 0


def drop_in(options: argparse.Namespace) -> int:
    """Read from the settings alone: it is wanted before the agent runs with them."""
    from agent.config import load_config
    from agent.host.machine.backend_drop_in import drop_in_path, render_reach

    config = load_config(config_path(options.config, os.environ), os.environ)
    found = [one for one in config.backend if one.name == options.backend]
    if not found:
        known = ", ".join(one.name for one in config.backend) or "none"
        raise NotFound(f"cannot find the backend {options.backend}; declared: {known}")
    text = render_reach(options.backend, found[0].flat())
    if wants_json(options):
        print_json({"path": str(drop_in_path(options.backend)), "text": text})
    elif text:
        print(text, end="")
    else:
        print(
            f"{options.backend} needs no drop-in: the unit has all rights that its worker needs",
            file=sys.stderr,
        )
    return 0
