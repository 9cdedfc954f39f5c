"""Speed measurements: `python -m benchmarks`, and scripts for single subjects."""
