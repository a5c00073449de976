"""Somebody's own bot as a session: a program that agent.toml names, under its worker."""
