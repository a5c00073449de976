"""Keeps WhatsApp sessions alive on bare Linux machines."""

VERSION = "0.1.0"
BUILD = ""
"""What a package was built from: a commit; "" in a checkout."""
