"""When things happen: the training loop, the evaluation loop, checkpoints, the wiring of a run."""
