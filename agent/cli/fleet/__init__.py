"""`wa-agent fleet`: the machines of a fleet, who runs which session, joining and leaving."""
