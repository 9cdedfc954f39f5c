"""Numbers that compare predictions with answers."""
