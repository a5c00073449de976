"""The addresses that sessions need: whether they can be reached, and what they are."""
