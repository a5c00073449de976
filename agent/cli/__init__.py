"""The command line: no powers of its own, everything goes through the API."""
