"""The parts of the generator of what a user's own bot does."""
