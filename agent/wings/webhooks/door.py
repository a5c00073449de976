"""What the webhooks bring to the agent."""

from agent.wing import Wing

WING = Wing(
    name="webhooks",
    settings="settings",
    part="all",
    routes="routes",
    commands={"commands": "webhooks"},
    title="events to other programs",
    doctor="doctor",
    bundle={"webhooks.json": "/api/webhooks"},
    panels=("webhooks.js",),
)
