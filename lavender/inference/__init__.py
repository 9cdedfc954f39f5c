"""One's own videos: a checkpoint answers, captions, chooses, matches and searches."""
