"""`wa-agent doctor`: its checks, of the machine as well, and the archive of `--bundle`."""
