"""Shell completion of the commands."""
