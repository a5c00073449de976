"""The metrics at /metrics, and the files for Prometheus, Alertmanager and Grafana."""
