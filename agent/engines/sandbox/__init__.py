"""A session without WhatsApp behind it: a phone that scans, messages, every fault on command."""
