"""What keeps messages, on a disk that fails at any operation and under kills at it."""
