"""What a session has of messages when its machine changes: its spool goes through the fleet's
database, its messages to send from machine to machine."""
