"""What the messages bring to the agent."""

from agent.wing import Wing

WING = Wing(
    name="messages",
    settings="settings",
    worker="worker",
    folder="messages",
    part="part",
    outbox="out.outbox",
    routes="routes",
    commands={"commands": "messages", "out.commands": "outbox"},
    title="messages",
    doctor="doctor",
    bundle={"messages.json": "/api/messages"},
)
