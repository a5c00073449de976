"""doctor's checks of each webhook: its files, its address, and its deliveries."""

import os
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from agent.cli.client import Client
from agent.cli.doctor.check import Check, Installation
from agent.cli.doctor.findings import Finding, note, ok, wrong
from agent.core.network.addresses import refuse_address
from agent.errors import ConfigError, WaError
from agent.wings.webhooks.settings import WebhookDeclaration, secret_of, webhooks_of


def checks(here: Installation) -> Iterator[Check]:
    """They send nothing: a test event would be an event that did not happen."""
    webhooks = webhooks_of(here.config)
    views = _views(here.client) if webhooks else None
    for webhook in webhooks:
        yield Check(f"webhook {webhook.name}", partial(_examine, webhook, views))


def _examine(
    webhook: WebhookDeclaration, views: Mapping[str, dict[str, Any]] | None, _: Installation
) -> list[Finding]:
    findings = [*_files(webhook), *_addresses(webhook), *_deliveries(webhook, views)]
    return findings or [ok("its secret and address are good, and its target takes events")]


def _files(webhook: WebhookDeclaration) -> Iterator[Finding]:
    advice = "the webhook sends nothing without it; give the user wa-agent the right to read it"
    try:
        secret_of(webhook)
    except ConfigError as error:
        yield wrong(str(error), advice)
    if webhook.ca_file and not os.access(webhook.ca_file, os.R_OK):
        yield wrong(f"cannot read {webhook.ca_file} (ca_file)", advice)


def _addresses(webhook: WebhookDeclaration) -> Iterator[Finding]:
    parts = urlsplit(webhook.url)
    try:
        addresses = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        sentence = f"this machine cannot resolve its name {parts.hostname}"
        yield wrong(sentence, "check its url and this machine's resolver")
        return
    reasons = [refuse_address(str(where[0]), private=webhook.private) for *_, where in addresses]
    if all(reasons):
        sentence = f"{parts.hostname} leads to {addresses[0][4][0]}: {reasons[0]}"
        advice = (
            "the agent sends nothing there; private = true allows this machine and private networks"
        )
        yield wrong(sentence, advice)


def _views(client: Client) -> Mapping[str, dict[str, Any]] | None:
    try:
        return {view["name"]: view for view in client.get("/api/webhooks")["webhooks"]}
    except WaError:
        return None  # the check of the agent tells why


def _deliveries(
    webhook: WebhookDeclaration, views: Mapping[str, dict[str, Any]] | None
) -> Iterator[Finding]:
    if views is None:
        return
    view = views.get(webhook.name)
    if view is None:
        advice = "systemctl reload wa-agent, which reads it"
        yield note("the running agent has not read it", advice)
    elif view["state"] == "failing":
        sentence = f"{view['problem']}; {view['waiting']} events wait"
        yield wrong(sentence, f"wa-agent webhooks test {webhook.name}")
    elif view["dead"]:
        sentence = f"its target refused {view['dead']} events, which the agent gave up"
        yield note(sentence, "wa-agent events --kind webhook_dead")
