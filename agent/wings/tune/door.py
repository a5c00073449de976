"""What the tuning of the machine brings to the program."""

from agent.wing import Wing

WING = Wing(name="tune", commands={"commands": "tune"}, title="this installation")
