"""The machine: starting, stopping and measuring workers."""
