"""The annotation files of public data sets, read as their authors publish them. `names.py` is the table of all."""
