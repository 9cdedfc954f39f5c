"""HTML report on one or several runs: curves, tables, examples with frames."""
