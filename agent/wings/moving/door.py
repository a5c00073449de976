"""What moving in and out brings: to the commands `import` and `export`, and `change-engine`."""

from agent.wing import Wing

WING = Wing(
    name="moving",
    imports="imports",
    exports="archives",
    commands={"change_engine": "change-engine"},
    title="between engines",
)
