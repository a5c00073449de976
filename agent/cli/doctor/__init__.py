"""`wa-agent doctor`: its checks, and the archive of `--bundle`."""
