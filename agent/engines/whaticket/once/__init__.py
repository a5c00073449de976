"""One round over the sessions of a whaticket-like server, for cron, containers and CI."""
