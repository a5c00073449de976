"""Failures that many sessions share: when they are one incident, and which session tries first."""
