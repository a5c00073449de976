"""All commands, in the order of the help."""

from agent.cli import (
    agent,
    backends,
    completion,
    config,
    demo,
    install_units,
    keys,
    repairs,
    tune,
    webhooks,
)
from agent.cli.alerts import command as alerts
from agent.cli.command import Group
from agent.cli.copies import move_in, snapshots, trash
from agent.cli.doctor import command as doctor
from agent.cli.fleet import command as fleet
from agent.cli.sessions import (
    create,
    delete,
    intents,
    pair,
    passkey,
    qr,
    remote_session,
    sandbox,
    send,
    settings,
    views,
    web,
)
from agent.cli.watch import events, health, reasons, top, why

GROUPS: tuple[Group, ...] = (
    agent,
    demo,
    create,
    views,
    settings,
    intents,
    delete,
    passkey,
    backends,
    send,
    qr,
    pair,
    top,
    health,
    why,
    repairs,
    reasons,
    events,
    fleet,
    webhooks,
    snapshots,
    move_in,
    remote_session,
    trash,
    keys,
    sandbox,
    web,
    alerts,
    doctor,
    install_units,
    tune,
    config,
    completion,
)
