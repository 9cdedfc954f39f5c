"""Sources of frames: one protocol, and one module per kind of storage."""
