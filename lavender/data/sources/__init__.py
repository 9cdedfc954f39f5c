"""Where frames come from: one protocol, and a module for each kind of storage."""
