"""What arrived in sessions and is read, and what a session tells a chat for the moment."""
