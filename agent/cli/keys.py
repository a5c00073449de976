"""Keys for the HTTP interface."""

import argparse
from urllib.parse import quote

from agent.cli.command import Subparsers, Words, add_command, add_group, client_of
from agent.cli.terminal import print_answer, print_list


def add(commands: Subparsers) -> None:
    summary = "keys for the HTTP interface"
    among = add_group(commands, "key", summary, "add shop --scope operate")
    words: Words = {
        "NAME": "name of the key, such as its program",
        "--scope SCOPE": (
            "read, operate, admin or instance:ID; may be repeated",
            {"action": "append", "required": True},
        ),
    }
    add_command(among, "add", add_key, example="prometheus --scope read", words=words)
    add_command(among, "list", list_keys)
    words = {"key_id=KEY": "its id, as `key list` shows it"}
    add_command(among, "revoke", revoke, example="3f8a2c1d", words=words)


def add_key(options: argparse.Namespace) -> int:
    """Make a key and print it, once."""
    body = {"name": options.name, "scopes": options.scope}
    key = client_of(options).post("/api/keys", body)
    return print_answer(options, key, key["token"])


def list_keys(options: argparse.Namespace) -> int:
    """List the keys."""
    return print_list(
        options,
        client_of(options).get("/api/keys")["keys"],
        {"ID": "id", "NAME": "name", "SCOPES": "scopes", "CREATED": "created"},
        nothing="no keys",
    )


def revoke(options: argparse.Namespace) -> int:
    """Revoke a key."""
    path = f"/api/keys/{quote(options.key_id, safe='')}"
    revoked = client_of(options).request("DELETE", path).json()
    return print_answer(options, revoked, f"{revoked['id']} revoked")
