"""A session goes out as one checksummed file, and comes in from one."""
