"""What the programs bring to the agent."""

from agent.wing import Wing

WING = Wing(
    name="programs",
    settings="settings",
    commands={"commands": "programs"},
    title="your own bots",
    creates="creation",
    doctor="doctor",
    imports="move_in",
)
"""The engine that runs them is agent/engines/program."""
