"""The spool of one session: what arrived, on the disk in the order in which it came."""
