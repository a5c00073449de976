"""What being understood by Evolution's clients and receivers brings to the agent."""

from agent.wing import Wing

WING = Wing(
    name="compat",
    settings="settings",
    part="part",
    face="face",
    formats={"evolution": "format"},
)
