"""What the agent does on a clock: usage, upkeep, alerts, the watchdog."""
