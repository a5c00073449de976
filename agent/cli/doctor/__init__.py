"""`wa-agent doctor` and `wa-agent bundle`: what is checked, and what is packed for a report."""
