"""The pages for people: the dashboard, the description of the interface."""
