"""Keeps WhatsApp sessions alive on bare Linux machines."""

VERSION = "0.1.0"
