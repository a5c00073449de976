"""The outbox: messages to send, on the disk before they are taken."""
