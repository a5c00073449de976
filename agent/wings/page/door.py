"""What the pages bring to the agent."""

from agent.wing import Wing

WING = Wing(name="page", routes="routes", described="/openapi.json")
