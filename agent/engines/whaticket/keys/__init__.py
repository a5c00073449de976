"""A whaticket server's stored keys: in files or in Redis, backed up, removed, put back."""
