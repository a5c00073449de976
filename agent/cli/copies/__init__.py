"""Commands about copies of sessions: snapshots, archives in and out, other programs, the trash."""
