"""What forking workers brings to the agent."""

from agent.wing import Wing

WING = Wing(name="warm", forks="process", fork_server="server")
