"""A whaticket server's log: followed, split into records, each given its session."""
