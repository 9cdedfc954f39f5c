"""What everything else stands on: processes, devices, seeds, logging, errors."""
