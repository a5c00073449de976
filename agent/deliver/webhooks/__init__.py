"""Webhooks: a cursor into the journal for each, signed requests, retries."""
