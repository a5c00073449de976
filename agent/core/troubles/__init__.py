"""What is wrong, as one table: which troubles there are, and which of them hold now."""
