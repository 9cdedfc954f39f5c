"""The converter as a fixture of all tests of this folder."""

from tests.unit.prepare.public.public_world import convert, tool

__all__ = ["convert", "tool"]
