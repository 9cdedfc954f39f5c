"""Foundation of all packages: processes, devices, seeds, logging, errors."""
