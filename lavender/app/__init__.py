"""A page for a browser: a checkpoint answers, captions, chooses, compares and searches. `python -m lavender.app`."""
