"""Session folders: looked at, copied, retired, put back, packed and unpacked."""
