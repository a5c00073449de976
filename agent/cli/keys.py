"""Keys for the HTTP interface."""

import argparse
from urllib.parse import quote

from agent.cli.command import Subparsers, add_command, add_group, client_of
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.show import moment


def add(commands: Subparsers) -> None:
    summary = "keys for the HTTP interface"
    among = add_group(commands, "key", summary, "add shop --scope operate")
    summary = "make a key and print it, once"
    parser = add_command(among, "add", add_key, summary, "prometheus --scope read")
    parser.add_argument("name", metavar="NAME", help="name of the key, such as its program")
    parser.add_argument(
        "--scope",
        action="append",
        required=True,
        help="read, operate, admin or instance:ID; may be repeated",
    )
    add_command(among, "list", list_keys, "list the keys")
    parser = add_command(among, "revoke", revoke, "revoke a key", "3f8a2c1d")
    parser.add_argument("key_id", metavar="KEY", help="its id, as `key list` shows it")


def add_key(options: argparse.Namespace) -> int:
    body = {"name": options.name, "scopes": options.scope}
    key = client_of(options).post("/api/keys", body)
    return print_answer(options, key, key["token"])


def list_keys(options: argparse.Namespace) -> int:
    return print_list(
        options,
        client_of(options).get("/api/keys")["keys"],
        ("ID", "NAME", "SCOPES", "CREATED"),
        lambda key: (key["id"], key["name"], " ".join(key["scopes"]), moment(key["created"])),
        nothing="no keys",
    )


def revoke(options: argparse.Namespace) -> int:
    path = f"/api/keys/{quote(options.key_id, safe='')}"
    revoked = client_of(options).request("DELETE", path).json()
    return print_answer(options, revoked, f"{revoked['id']} revoked")
