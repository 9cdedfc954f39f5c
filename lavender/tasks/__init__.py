"""What is asked of the model and how it is scored, one file a task."""
