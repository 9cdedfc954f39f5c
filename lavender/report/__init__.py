"""A page about one run or several: curves, tables, examples with their frames."""
