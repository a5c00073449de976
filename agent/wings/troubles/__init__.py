"""The agent looks for what is wrong on its own clock, and tells what began and what is over."""
