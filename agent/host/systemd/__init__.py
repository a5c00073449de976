"""Workers as systemd units, over D-Bus."""
