"""The configuration: check it, show the settings in use, write a first file."""

import argparse
import os
import sys
from pathlib import Path

from agent.cli.agent import given_settings, overrides_of
from agent.cli.command import (
    Subparsers,
    add_command,
    add_config_options,
    add_group,
    client_of,
    wants_json,
)
from agent.cli.doctor.agent_settings import settings_in_use
from agent.cli.paths import INSTALLED_CONFIG, config_path
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import print_json
from agent.errors import Refused
from agent.files import write_whole


def add(commands: Subparsers) -> None:
    example = "--config agent.toml"
    among = add_group(commands, "config", "the configuration", f"check {example}")
    for name, run, summary in (
        ("check", check, "read the configuration and name its errors"),
        ("show", show, "show every setting in use"),
        ("init", init, "write a commented configuration"),
    ):
        parser = add_command(among, name, run, summary, example)
        add_config_options(parser)
        if name == "init":
            parser.add_argument("--force", action="store_true", help="replace a file")


def check(options: argparse.Namespace) -> int:
    from agent.config.load import load_config
    from agent.supervise.start_up import find_declared_problem

    path, given = config_path(options.config, os.environ), overrides_of(options)
    config = load_config(path, os.environ, overrides=given, more=find_declared_problem)
    unused = config.warnings
    if not wants_json(options):
        for sentence in unused:
            print(f"wa-agent: {sentence}", file=sys.stderr)
    shown = {"good": True, "file": path and str(path), "warnings": unused}
    return print_answer(options, shown, f"{path or 'the defaults'}: good")


def show(options: argparse.Namespace) -> int:
    from agent.config.load import load_config
    from agent.config.render import render_config, tables_of, without_secrets

    path, overrides = settings_in_use(options, client_of(options))
    config = without_secrets(load_config(path, os.environ, overrides=overrides))
    if wants_json(options):
        print_json(tables_of(config))
    else:
        print(render_config(config, only_changed=False), end="")
    return 0


def init(options: argparse.Namespace) -> int:
    from agent.config.load import load_config
    from agent.config.render import render_config

    target = Path(options.config or INSTALLED_CONFIG)
    # Only what the command line gives: an older file must not flow into the new one.
    config = load_config(None, {}, overrides=given_settings(options))
    text = render_config(config)
    if target.exists() and not options.force:
        raise Refused(f"cannot write {target}: it exists; --force replaces it")
    _replace(target.resolve(), text)
    done = f"{target} written; check it with: wa-agent config check --config {target}"
    return print_answer(options, {"file": str(target)}, done)


def _replace(target: Path, text: str) -> None:
    """Written in place, a full disk or a kill would leave half a file."""
    from agent.vault.errors import explain

    try:
        before = target.stat() if target.exists() else None
        mode = 0o644 if before is None else before.st_mode & 0o777
        group = None if before is None else before.st_gid
        write_whole(target, text.encode(), mode=mode, group=group)
    except OSError as error:
        raise explain("write", target, error) from error
