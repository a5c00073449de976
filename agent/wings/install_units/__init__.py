"""A program that pip installed becomes a service of its machine."""
