"""The machine itself: processes, memory, load, what `doctor` and `tune` look at."""
