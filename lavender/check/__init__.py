"""Check of data sets: reads them like training and reports their faults."""
