"""What arrives in a session, kept on the disk until every consumer has it."""
