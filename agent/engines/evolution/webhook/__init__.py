"""What the server's webhook tells, and how the server is made to tell it."""
