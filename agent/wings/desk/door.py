"""What pairing at a desk brings to the agent."""

from agent.wing import Wing

WING = Wing(
    name="desk",
    routes="routes",
    commands={"commands": "invite", "pair": "pair"},
    title="pairing at a desk",
    invites="invites",
    creates="commands",
    panels=("desk.js",),
)
