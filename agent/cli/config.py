"""The configuration: check it, show the settings in use, write a first file."""

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agent.cli.agent import given_settings, overrides_of
from agent.cli.client import INSTALLED_CONFIG, Client, config_path
from agent.cli.command import Subparsers, add_command, add_group, client_of, config_words
from agent.cli.terminal import print_answer
from agent.errors import Refused, WaError
from agent.files import write_whole


def add(commands: Subparsers) -> None:
    example, words = "--config agent.toml", config_words()
    among = add_group(commands, "config", "the configuration", f"check {example}")
    add_command(among, "check", check, example=example, words=words)
    add_command(among, "show", show, example=example, words=words)
    words = {**words, "--force": "replace a file"}
    add_command(among, "init", init, example=example, words=words)


def check(options: argparse.Namespace) -> int:
    """Read the configuration and name its errors."""
    from agent.config.load import load_config

    path, given = config_path(options.config, os.environ), overrides_of(options)
    config = load_config(path, os.environ, overrides=given)
    for sentence in () if options.json else config.warnings:
        print(f"wa-agent: {sentence}", file=sys.stderr)
    shown = {"good": True, "file": path and str(path), "warnings": config.warnings}
    return print_answer(options, shown, f"{path or 'the defaults'}: good")


def show(options: argparse.Namespace) -> int:
    """Show every setting in use."""
    from agent.config.load import load_config
    from agent.config.render import render_config, tables_of, without_secrets

    path, overrides = settings_in_use(options, client_of(options))
    config = without_secrets(load_config(path, os.environ, overrides=overrides))
    text = render_config(config, only_changed=False).rstrip()
    return print_answer(options, tables_of(config), text)


def init(options: argparse.Namespace) -> int:
    """Write a commented configuration."""
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


_KEYS = {
    "state": "agent.state_path",
    "sessions": "agent.session_storage_path",
    "cache": "agent.cache_path",
    "socket": "api.socket",
}


def settings_in_use(
    options: argparse.Namespace, client: Client
) -> tuple[Path | None, dict[str, str]]:
    """The file to read, and the settings over it.

    Those of the command line are used. Without them an agent that --socket or WA_AGENT_SOCKET
    names is asked for its own; without an answer nothing changes.
    """
    path, overrides = config_path(options.config, os.environ), overrides_of(options)
    if options.config or options.state:
        return path, overrides
    places: Mapping[str, str] = {}
    if names_an_agent_here(client):
        with suppress(WaError):  # without an answer nothing changes
            places = client.get("/api/health")["agent"].get("places", {})
    if "config" in places:
        path = Path(places["config"])
    paths = {key: places[name] for name, key in _KEYS.items() if name in places}
    return path, {**overrides, **paths}


def names_an_agent_here(client: Client) -> bool:
    return not client.url and bool(client.sockets or os.environ.get("WA_AGENT_SOCKET"))
