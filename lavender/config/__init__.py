"""Typed options, from a JSON file and the command line."""
