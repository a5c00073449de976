"""What pairing at a desk brings: the command `pair`."""

from agent.wing import Wing

WING = Wing(name="desk", commands={"pair": "pair"}, title="copies, and moving in")
