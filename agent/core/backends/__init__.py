"""What is decided about the servers of backends."""
