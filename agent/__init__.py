"""Keeps WhatsApp sessions alive on bare Linux machines."""

VERSION = "0.1.0"
BUILD = ""
"""Commit that a package was built from; "" in a checkout."""
