"""Tasks: their data, losses, predictions and metrics, one file per task."""
