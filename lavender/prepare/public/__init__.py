"""Annotation files of public data sets, as published by their authors. `names.py` lists all."""
