"""The agent: its parts in one task group, from the first look at the disk to the orderly stop."""
