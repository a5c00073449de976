"""What the demo brings to the program."""

from agent.wing import Wing

WING = Wing(name="demo", commands={"commands": "demo"}, title="trying it out")
