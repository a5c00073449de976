"""The repair of one session: its record, its steps, and which step comes next."""
