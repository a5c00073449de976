"""`fleet join | leave`: brings this machine with its sessions into a fleet, and out of it."""

import argparse
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Subparsers, add_command, client_of
from agent.cli.fleet.owner import as_owner_of
from agent.cli.fleet.waiting import add_wait_option, ask_until
from agent.cli.paths import config_path
from agent.cli.terminal.answer import print_answer
from agent.errors import AgentUnreachable, ConfigError, InvalidRequest, Refused

if TYPE_CHECKING:
    from agent.config import Config

_RESTART = "systemctl restart wa-agent"
_TEXTS = (
    ("database", "URL", "postgresql://USER@HOST/NAME, without a password", True),
    ("database-password-file", "FILE", "file with the password of that login", False),
    ("name", "NAME", "name of this machine in the fleet; default: its host name", False),
    ("listen", "HOST:PORT", "where this machine answers the other machines", True),
    (
        "address",
        "URL",
        "https://HOST:PORT at which they reach it; default: made of --listen",
        False,
    ),
    ("certificate", "FILE", "TLS certificate of --listen (PEM)", False),
    ("certificate-key", "FILE", "its private key (PEM)", False),
    ("ca", "FILE", "CA certificates that signed those of the machines (PEM)", False),
)


def add(among: Subparsers) -> None:
    summary = "bring this machine with its sessions into a fleet: check everything, set [fleet]"
    example = "--database postgresql://agent@db/fleet --listen 10.0.0.2:8471 --capacity 200"
    parser = add_command(among, "join", join, summary, example)
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    for name, metavar, meaning, required in _TEXTS:
        parser.add_argument(f"--{name}", metavar=metavar, help=meaning, required=required)
    parser.add_argument(
        "--key-file", "--file", metavar="FILE", help="the fleet's key; default: fleet.key in state"
    )
    parser.add_argument("--capacity", type=int, metavar="N", help="most sessions of this machine")
    parser.add_argument(
        "--label", action="append", metavar="NAME=VALUE", help="label of this machine; repeatable"
    )

    summary = "take this machine with its sessions out of its fleet; they go on here"
    parser = add_command(among, "leave", leave, summary)
    parser.add_argument("--config", metavar="FILE", help="agent.toml")
    add_wait_option(parser)


def join(options: argparse.Namespace) -> int:
    from agent.config.settings_file import candidate, put, with_keys

    path = _settings_file(options)
    text = path.read_text()
    changed = with_keys(text, "fleet", _values(options))
    with candidate(path, changed) as new:
        config = _load(new, path)
        ids = _ids(config, client_of(options))
        with as_owner_of(config.agent.state_path):
            findings = _check(config, ids)
        if path.read_text() != text:
            raise Refused(f"cannot change {path}: another program changed it meanwhile")
    backup = put(path, changed)
    shown = {"file": str(path), "backup": str(backup), "checked": findings, "next": _RESTART}
    return print_answer(
        options,
        shown,
        *findings,
        f"{path} written; the old one is {backup}",
        f"restart the agent: {_RESTART}; sessions stay connected, then: wa-agent fleet status",
    )


def _settings_file(options: argparse.Namespace) -> Path:
    path = config_path(options.config, os.environ)
    if path is None or not path.is_file():
        raise InvalidRequest(
            f"cannot change the settings: {path or 'agent.toml'} is not there; name it with"
            " --config, or write one with: wa-agent config init",
            field="config",
        )
    return path.resolve()


def _values(options: argparse.Namespace) -> dict[str, Any]:
    if urlsplit(options.database).password is not None:
        raise InvalidRequest(
            "cannot take a password from the command line, which every user of this machine can"
            " read: put it into a file, --database-password-file FILE",
            field="database",
        )
    names = [name.replace("-", "_") for name, *_ in _TEXTS]
    values = {name: getattr(options, name) for name in (*names, "key_file", "capacity")}
    files = ("database_password_file", "certificate", "certificate_key", "ca", "key_file")
    for name in files:
        values[name] = values[name] and str(Path(values[name]).absolute())
    values["labels"] = options.label
    return {name: value for name, value in values.items() if value is not None}


def _load(new: Path, path: Path) -> "Config":
    from agent.config import load_config

    try:
        return load_config(new, os.environ)
    except ConfigError as error:
        sentence = str(error).replace(str(new), str(path))
        raise ConfigError(sentence, field=error.field, code=error.code) from None


def _check(config: "Config", ids: list[str]) -> list[str]:
    """What is good, a line each; the first thing that is not raises."""
    from agent.fleet.key import FleetKey

    key = FleetKey.read(config.fleet_key)
    return [
        *_check_database(config, key.fingerprint, ids),
        f"key: {config.fleet_key}, fingerprint {key.fingerprint}",
        *_check_certificate(config),
        _check_listen(config.fleet.listen),
        f"sessions: {len(ids)} come into the fleet with this machine",
    ]


def _ids(config: "Config", client: Client) -> list[str]:
    from agent.vault.identity import found_sessions

    try:
        return [instance["id"] for instance in client.instances()]
    except AgentUnreachable:
        return [instance.id for instance, _ in found_sessions(config.session_root)]


def _check_database(config: "Config", fingerprint: str, ids: list[str]) -> list[str]:
    import asyncio

    from agent.cli.fleet.database import agents_address, database_lines
    from agent.fleet.postgres.examine import examine

    facts, name = asyncio.run(examine(agents_address(config), ids)), config.fleet.machine
    if facts.fingerprint not in ("", fingerprint):
        raise ConfigError(
            f"cannot join with the key {fingerprint}: the fleet's machines have the key"
            f" {facts.fingerprint}; copy theirs here",
            field="fleet.key_file",
            code="fleet_key",
        )
    if name in facts.names:
        raise ConfigError(
            f"cannot join as {name}: a machine of the fleet has this name; choose another with"
            " --name, or forget that machine",
            field="fleet.name",
            code="machine_name_taken",
        )
    if facts.ttl not in (None, config.fleet.ttl):
        raise ConfigError(
            f"cannot join with ttl = {config.fleet.ttl:g}: the fleet's machines have {facts.ttl:g};"
            " set it in [fleet]",
            field="fleet.ttl",
            code="fleet_ttl",
        )
    if facts.taken:
        raise ConfigError(
            f"cannot join: other machines of the fleet have sessions named"
            f" {', '.join(facts.taken[:20])}; export and delete these here, or create them with"
            " other names",
            code="owned_elsewhere",
        )
    return database_lines(facts)


def _check_certificate(config: "Config") -> list[str]:
    section = config.fleet
    if not section.certificate:
        return ["certificate: none, plain HTTP on a private address"]
    from agent.fleet.certificate import ends_at, why_refused

    host = urlsplit(section.reached_at).hostname or ""
    ends_at(section.certificate, section.certificate_key)
    refusal = why_refused(section.certificate, section.certificate_key, section.ca, host)
    if refusal:
        raise ConfigError(
            f"cannot use the certificate {section.certificate} for {host}: {refusal}",
            field="fleet.certificate",
            code="certificate",
        )
    return [f"certificate: good for {host}"]


def _check_listen(listen: str) -> str:
    from agent.config import split_address

    host, port = split_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen}: {error.strerror}; name a free port on an address of"
                " this machine",
                field="fleet.listen",
                code="address",
            ) from error
    return f"address: {listen} is free"


def leave(options: argparse.Namespace) -> int:
    from agent.config.settings_file import put, with_keys

    client, path = client_of(options), _settings_file(options)
    changed = with_keys(path.read_text(), "fleet", {"database": None})
    answer = client.post("/api/fleet/leave")
    if options.wait is not None:
        what = "this machine to leave its fleet"
        ask_until(lambda: _has_left(client), bool, options.wait, what)
    backup = put(path, changed)
    return print_answer(
        options,
        {**answer, "file": str(path), "backup": str(backup)},
        "this machine leaves its fleet; its sessions go on here",
        f"{path} written without [fleet] database; the old one is {backup}",
        f"restart the agent: {_RESTART}; sessions stay connected",
    )


def _has_left(client: Client) -> bool:
    try:
        fleet = client.get("/api/fleet")
    except AgentSaidNo as error:
        if error.code != "no_fleet":
            raise
        return True
    return all(machine["name"] != fleet["machine"] for machine in fleet["machines"])
