"""`--wait`: follows an instance until it is connected, or until only a person can help it."""

import argparse
import time
from typing import Any

from agent.cli.client import Client
from agent.core.reasons import reason_of
from agent.errors import Refused, TryLater

SETTLED = 5.0
"""Seconds: right after a start an instance may still show the reason of its last run."""


def add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="wait until it is connected; exit status 75 when late",
    )


def wait_until_connected(client: Client, id: str, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    hopeless_since: float | None = None
    while True:
        instance = client.get(f"/api/instance/{id}")
        status, sentence = instance["connection_status"], instance["sentence"]
        if status == "CONNECTED":
            return instance
        if not _only_a_person_helps(instance):
            hopeless_since = None
        elif hopeless_since is None:
            hopeless_since = time.monotonic()
        elif time.monotonic() - hopeless_since >= SETTLED:
            raise Refused(f"cannot wait for {id}: a person must help, {sentence}")
        if time.monotonic() >= deadline:
            raise TryLater(f"cannot wait longer for {id}: it is {status}, {sentence}")
        time.sleep(0.2)


def _only_a_person_helps(instance: dict[str, Any]) -> bool:
    """False while it shows a code: the scan is what the command waits for."""
    down = instance["connection_status"] in ("DISCONNECTED", "AUTH_FAILURE")
    return down and bool(instance["reason"]) and reason_of(instance["reason"]).hopeless
