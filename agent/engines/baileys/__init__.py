"""WhatsApp without a browser: the npm package baileys, unmodified, in a Node process."""
