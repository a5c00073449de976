"""Failures that many sessions share: when they are one incident, and who tries first."""
