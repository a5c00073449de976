"""What archives of sessions bring to the agent: the commands `export` and `import`, their routes,
and what other wings bring sessions in with."""

from agent.wing import Wing

WING = Wing(
    name="archives",
    archives="archives",
    routes="routes",
    commands={"exports": "export", "imports": "import"},
    title="copies, and moving in",
)
