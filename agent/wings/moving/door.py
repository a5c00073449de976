"""What moving in and out brings: to the commands `import` and `export`."""

from agent.wing import Wing

WING = Wing(
    name="moving",
    imports="imports",
    exports="archives",
)
