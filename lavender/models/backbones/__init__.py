"""What sees the frames: one protocol (`base.py`), a file for each kind of backbone, and the table that chooses one."""
