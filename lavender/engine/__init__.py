"""Training and evaluation loops, checkpoints, and the set-up of a run."""
