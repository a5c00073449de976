"""Keys for the HTTP interface."""

import argparse
from urllib.parse import quote

from agent.cli.command import Subparsers, add_command, add_group, client_of, wants_json
from agent.cli.terminal.listing import print_list
from agent.cli.terminal.show import moment, print_json


def add(commands: Subparsers) -> None:
    example = "wa-agent key add shop --scope operate"
    among = add_group(commands, "key", "keys for the HTTP interface", example)
    parser = add_command(
        among,
        "add",
        add_key,
        "make a key and print it, once",
        "wa-agent key add prometheus --scope read",
    )
    parser.add_argument("name", metavar="NAME", help="name of the key, such as its program")
    parser.add_argument(
        "--scope",
        action="append",
        required=True,
        help="read, operate, admin or instance:ID; may be repeated",
    )
    add_command(among, "list", list_keys, "list the keys", "wa-agent key list")
    parser = add_command(among, "revoke", revoke, "revoke a key", "wa-agent key revoke 3f8a2c1d")
    parser.add_argument("key_id", metavar="KEY", help="its id, as `key list` shows it")


def add_key(options: argparse.Namespace) -> int:
    body = {"name": options.name, "scopes": options.scope}
    found = client_of(options).post("/api/keys", body)
    if wants_json(options):
        print_json(found)
    else:
        print(found["token"])
    return 0


def list_keys(options: argparse.Namespace) -> int:
    found = client_of(options).get("/api/keys")["keys"]
    print_list(
        options,
        found,
        ("ID", "NAME", "SCOPES", "CREATED"),
        lambda one: (one["id"], one["name"], " ".join(one["scopes"]), moment(one["created"])),
        nothing="no keys",
    )
    return 0


def revoke(options: argparse.Namespace) -> int:
    found = client_of(options).request(
        "DELETE", f"/api/keys/{quote(options.key_id, safe='')}"
    ).json()  # fmt: skip
    if wants_json(options):
        print_json(found)
    else:
        print(f"{found['id']} revoked")
    return 0
