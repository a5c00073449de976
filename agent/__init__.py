"""Keeps WhatsApp sessions alive on bare Linux machines."""
