"""What clients and receivers of another program's API understand: Evolution API 2.3."""
