"""The webhooks in the settings: can they be signed, may they be sent to, and do they answer?"""

import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from agent.cli.client import Client
from agent.config import Config, WebhookDeclaration, secret_of
from agent.core.addresses import refuse_address
from agent.errors import ConfigError, WaError
from agent.host.machine.findings import Finding, note, ok, wrong


def examine(config: Config, client: Client) -> Iterator[Finding]:
    """Nothing is sent: that would be an event that did not happen."""
    told = _told(client)
    for one in config.webhook:
        found = [*_files(one), *_addresses(one), *_as_seen(one, told)]
        yield from found or [
            ok(_check(one), "its secret and address are good, and its target takes events")
        ]


def _check(one: WebhookDeclaration) -> str:
    return f"webhook {one.name}"


def _files(one: WebhookDeclaration) -> Iterator[Finding]:
    advice = "the webhook sends nothing without it; give the user wa-agent the right to read it"
    try:
        secret_of(one)
    except ConfigError as error:
        yield wrong(_check(one), str(error), advice)
    if one.ca_file and not os.access(one.ca_file, os.R_OK):
        yield wrong(_check(one), f"cannot read {one.ca_file} (ca_file)", advice)


def _addresses(one: WebhookDeclaration) -> Iterator[Finding]:
    parts = urlsplit(one.url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        advice = "check its url and this machine's resolver"
        yield wrong(_check(one), f"this machine cannot resolve its name {parts.hostname}", advice)
        return
    reasons = [refuse_address(str(place[0]), private=one.private) for *_, place in found]
    if all(reasons):
        sentence = f"{parts.hostname} leads to {found[0][4][0]}: {reasons[0]}"
        advice = (
            "the agent sends nothing there; private = true allows this machine and private networks"
        )
        yield wrong(_check(one), sentence, advice)


def _told(client: Client) -> Sequence[dict[str, Any]] | None:
    try:
        found: Sequence[dict[str, Any]] = client.get("/api/webhooks")["webhooks"]
    except WaError:
        return None  # that no agent answers is another check's finding
    return found


def _as_seen(one: WebhookDeclaration, told: Sequence[dict[str, Any]] | None) -> Iterator[Finding]:
    if told is None:
        return
    seen = next((each for each in told if each["name"] == one.name), None)
    if seen is None:
        advice = "systemctl reload wa-agent, which reads it"
        yield note(_check(one), "the running agent does not know it", advice)
    elif seen["state"] == "failing":
        sentence = f"{seen['problem']}; {seen['waiting']} events wait"
        yield wrong(_check(one), sentence, f"wa-agent webhooks test {one.name}")
    elif seen["dead"]:
        sentence = f"its target refused {seen['dead']} events, which the agent set aside"
        yield note(_check(one), sentence, f"wa-agent webhooks dead {one.name}")
