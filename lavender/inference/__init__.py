"""Inference on your own videos: answers, captions, choices, matches and search."""
