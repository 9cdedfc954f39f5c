"""A task that is not part of the house: the files that CONTRIBUTING names for a new task, and no others."""
