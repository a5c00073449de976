"""`fleet key make | show-fingerprint`: the secret that all machines of a fleet share."""

import argparse
import os
from pathlib import Path

from agent.cli.command import Subparsers, add_command, add_config_options, add_group
from agent.cli.fleet.owner import as_owner_of
from agent.cli.paths import config_path
from agent.cli.terminal.answer import print_answer


def add(among: Subparsers) -> None:
    of_key = add_group(among, "key", "the secret that all machines of the fleet share", "make")
    for name, run, summary in (
        ("make", make, "make the key of a new fleet; copy its file to the other machines"),
        ("show-fingerprint", show, "print what tells one key from another, and nothing of the key"),
    ):
        parser = add_command(of_key, name, run, summary)
        add_config_options(parser, listen=argparse.SUPPRESS)
        help = "the key's file; default: [fleet] key_file, else fleet.key in the state folder"
        parser.add_argument("--key-file", "--file", metavar="FILE", help=help)


def _places(options: argparse.Namespace) -> tuple[Path, Path]:
    """The key's file, and the state folder, whose owner reads it."""
    from agent.cli.agent import overrides_of
    from agent.config import load_config

    path = config_path(options.config, os.environ)
    config = load_config(path, os.environ, overrides=overrides_of(options))
    file = Path(options.key_file).absolute() if options.key_file else config.fleet_key
    return file, config.agent.state_path


def make(options: argparse.Namespace) -> int:
    from agent.fleet.key import FleetKey

    file, state = _places(options)
    with as_owner_of(state):
        key = FleetKey.make(file)
    return print_answer(
        options,
        {"file": str(file), "fingerprint": key.fingerprint},
        f"{file} written, fingerprint {key.fingerprint}",
        "copy it to every machine of the fleet (scp -p), and keep a copy in a safe place:"
        " without it no stored session can be opened",
    )


def show(options: argparse.Namespace) -> int:
    from agent.fleet.key import FleetKey

    file, state = _places(options)
    with as_owner_of(state):
        key = FleetKey.read(file)
    shown = {"file": str(file), "fingerprint": key.fingerprint}
    return print_answer(options, shown, key.fingerprint)
