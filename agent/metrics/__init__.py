"""The metrics at /metrics, and the files for Prometheus and Grafana."""
