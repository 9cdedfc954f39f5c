"""Web page for a checkpoint: answers, captions, choices, comparison and search. `python -m lavender.app`."""
