"""Failures that many sessions share: when they are an incident, and which session tries first."""
