"""Ways to reach WhatsApp, one module each."""
