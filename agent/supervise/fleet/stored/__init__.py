"""What the fleet's database has of each session here: its files, its profile, its messages."""
