"""What the shell completion brings to the program."""

from agent.wing import Wing

WING = Wing(name="completion", commands={"commands": "completion"}, title="this installation")
