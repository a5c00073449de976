"""What the agent sends by itself: events to webhooks and listeners, alerts to an Alertmanager."""
