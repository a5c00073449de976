"""Workers as plain child processes, where there is no systemd."""
