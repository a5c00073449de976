"""How agents of a fleet show each other who they are, and who asked them."""

SCHEME = "Fleet"
"""Of the Authorization header between machines: `Fleet <bearer>`."""
CALLER = "WA-Fleet-Caller"
"""Names the client of a forwarded request, with its rights, as JSON."""
MACHINE = "WA-Fleet-Machine"
"""In an answer: the machine that gave it."""
