"""How fast this code is on a machine: `python -m benchmarks`, and scripts of single subjects."""
