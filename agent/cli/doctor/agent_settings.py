"""The settings of the running agent: doctor and `config show` read its own, not another's."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from agent.cli.agent import overrides_of
from agent.cli.client import Client
from agent.cli.paths import config_path
from agent.errors import WaError

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
    places = places_of(client) if names_an_agent_here(client) else {}
    if "config" in places:
        path = Path(places["config"])
    paths = {key: places[name] for name, key in _KEYS.items() if name in places}
    return path, {**overrides, **paths}


def names_an_agent_here(client: Client) -> bool:
    return not client.url and bool(client.sockets or os.environ.get("WA_AGENT_SOCKET"))


def places_of(client: Client) -> Mapping[str, str]:
    """The paths and the HTTP address of the running agent; empty without an answer."""
    try:
        places = client.get("/api/health")["agent"].get("places", {})
    except WaError:
        return {}
    return {str(name): str(path) for name, path in places.items()}
