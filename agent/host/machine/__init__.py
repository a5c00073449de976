"""The machine itself: processes, memory, load; the checks of `doctor` and `tune`."""
