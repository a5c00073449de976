"""A bot and its WhatsApp, through which numbered messages go in both directions."""
