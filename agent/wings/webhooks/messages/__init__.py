"""Webhooks that get what arrives in sessions: a cursor for each session, into what it keeps."""
