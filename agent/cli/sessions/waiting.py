"""`--wait`: follows an instance until it is connected, or until only a person can help it: the scan
of a code that it shows is a person's, too."""

import argparse
import time
from typing import Any

from agent.cli.client import Client
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import clean
from agent.core.reasons import reason_of
from agent.errors import Refused, TryLater

SETTLED = 5.0
"""Seconds: right after a start an instance may still show the reason of its last run, and the
sandbox a code that its own phone scans."""


def add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="wait until it is connected; exit status 75 when late, or when a person must scan",
    )


def wait_and_print(
    client: Client, options: argparse.Namespace, instance: dict[str, Any], done: str
) -> int:
    if getattr(options, "wait", None) is not None:
        instance = wait_until_connected(client, options.id, options.wait)
        done = "is connected"
    hold = clean(instance["wait_sentence"])
    waits = f"it waits: {hold} (wa-agent why {options.id})" if instance["wait_reason"] else ""
    return print_answer(options, instance, f"{options.id} {done}", waits)


def wait_until_connected(client: Client, id: str, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    hopeless_since: float | None = None
    while True:
        instance = client.get(f"/api/instance/{id}")
        status, sentence = instance["connection_status"], instance["sentence"]
        if status == "CONNECTED":
            return instance
        shows_code = status == "QR_REQUIRED"
        if not shows_code and not _only_a_person_helps(instance):
            hopeless_since = None
        elif hopeless_since is None:
            hopeless_since = time.monotonic()
        settles = SETTLED if not shows_code or _scans_itself(instance) else 0.0
        if hopeless_since is not None and time.monotonic() - hopeless_since >= settles:
            if shows_code:
                raise TryLater(f"a person must scan the code of {id}: wa-agent qr {id} --watch")
            raise Refused(f"cannot wait for {id}: a person must help, {sentence}")
        if time.monotonic() >= deadline:
            raise TryLater(f"cannot wait longer for {id}: it is {status}, {sentence}")
        time.sleep(0.2)


def _scans_itself(instance: dict[str, Any]) -> bool:
    from agent.engines.catalog import CATALOG

    entry = CATALOG.get(instance["engine"])
    return entry is not None and entry.scans_itself


def _only_a_person_helps(instance: dict[str, Any]) -> bool:
    down = instance["connection_status"] in ("DISCONNECTED", "AUTH_FAILURE")
    return down and bool(instance["reason"]) and reason_of(instance["reason"]).hopeless
