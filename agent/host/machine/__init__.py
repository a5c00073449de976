"""The machine itself: processes, memory, load, and the form of what doctor finds of them."""
