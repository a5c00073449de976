"""Where no systemd is, workers are forked from one process that has imported what all of them
need: this saves memory. Without it each is spawned."""
