"""The coordinator on PostgreSQL."""
