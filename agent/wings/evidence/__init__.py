"""Why a session fails, for a person: its worker's last lines, and what an engine kept of failed
starts."""
