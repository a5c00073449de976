"""What the agent does on a clock: usage, upkeep, the watchdog."""
