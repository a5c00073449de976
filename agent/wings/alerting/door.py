"""What the alerting brings to the agent."""

from agent.wing import Wing

WING = Wing(
    name="alerting",
    part="part",
    routes="routes",
    commands={"commands": "alerts"},
    title="every day",
    doctor="doctor",
    bundle={"alerts.json": "/api/alerts"},
)
"""Its table is no part of it (agent/core/alerts): Prometheus' rules are made of it as well."""
