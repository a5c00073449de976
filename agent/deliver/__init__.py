"""What the agent sends by itself: events to listeners."""
