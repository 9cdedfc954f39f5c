"""Metrics: comparison of predictions with answers."""
