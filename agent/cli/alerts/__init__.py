"""Commands about alerts: evaluating, exporting, testing, and a listener for a trial."""
