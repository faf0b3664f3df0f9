"""Metrics: what there is, how processes record it without waiting for each other, and how Prometheus reads it."""
