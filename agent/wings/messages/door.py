"""What the messages bring to the agent."""

from agent.wing import Wing

WING = Wing(name="messages", worker="worker")
