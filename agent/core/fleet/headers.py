"""How agents of a fleet show each other who they are, and who asked them."""

SCHEME = "Fleet"
"""Of the Authorization header between machines: `Fleet <bearer>`."""
CALLER = "WA-Fleet-Caller"
"""Names the client of a forwarded request, with its rights, as JSON."""
MACHINE = "WA-Fleet-Machine"
"""In an answer: the machine that gave it."""
ACCEPTED_LOSS = "WA-Fleet-Accepted-Loss"
"""Asking for a promise: the accepted loss of records that the machine has heard of last. A field
of the body would be refused by the version before."""
