"""What the messages bring to the agent."""

from agent.wing import Wing

WING = Wing(
    name="messages",
    settings="settings",
    folder="messages",
    part="part",
    routes="routes",
    commands={"commands": "messages", "outbox_command": "outbox"},
    title="messages",
    doctor="doctor",
    bundle={"messages.json": "/api/messages"},
)
