"""What the troubles bring to the agent; their table is in agent/core/troubles."""

from agent.wing import Wing

WING = Wing(
    name="troubles",
    part="part",
    routes="routes",
    doctor="doctor",
    bundle={"troubles.json": "/api/troubles"},
)
