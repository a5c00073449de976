"""Sessions on an Evolution API server (2.3.x, 2.4 and 1.8)."""
