"""The agent evaluates the table of alerts itself, for machines that have no Prometheus; what is
active is shown, and goes to an Alertmanager."""
