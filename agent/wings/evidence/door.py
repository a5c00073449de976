"""What the evidence of failing sessions brings to the agent."""

from agent.wing import Wing

WING = Wing(
    name="evidence",
    part="part",
    routes="routes",
    commands={"commands": "logs"},
    title="what happens",
)
