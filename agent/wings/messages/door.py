"""What the messages bring to the agent."""

from agent.wing import Wing

WING = Wing(
    name="messages",
    worker="worker",
    part="part",
    routes="routes",
    commands={"commands": "messages"},
    title="messages",
    doctor="doctor",
    bundle={"messages.json": "/api/messages"},
    alerts="alerts",
)
