"""Real outages in real time: what they cost beyond their own length."""
