"""The settings of the machine's kernel that many long connections need, compared and written."""
