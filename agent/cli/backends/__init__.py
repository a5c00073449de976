"""`wa-agent backends`."""
