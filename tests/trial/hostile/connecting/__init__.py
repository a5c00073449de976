"""The parts of WhatsApp's generator: what is drawn, and a scan on a bad disk."""
