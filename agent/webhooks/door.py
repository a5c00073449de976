"""What the webhooks bring to the agent."""

from agent.wing import Wing

WING = Wing(
    name="webhooks",
    package="agent.webhooks",
    settings="settings",
    part="part",
    routes="part",
    commands={"commands": "webhooks"},
    title="events to other programs",
    doctor="commands",
    bundle={"webhooks.json": "/api/webhooks"},
    panels=("webhooks.js",),
)
