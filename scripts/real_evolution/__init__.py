"""A real Evolution server under an agent, behind a proxy that meddles; WhatsApp is the stand-in."""
