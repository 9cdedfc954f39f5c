"""Video backbones: one protocol (`base.py`), one file per kind of backbone, and the table of all kinds."""
