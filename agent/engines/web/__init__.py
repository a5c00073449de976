"""WhatsApp Web in one lean headless browser per instance."""
