"""Messages: what arrives, what is sent, what the server keeps of both."""
