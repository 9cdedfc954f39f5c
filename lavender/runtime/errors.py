"""Faults of the input, told in one line: what is wrong, in which file, line or key, and what to do."""

from lavender.runtime.quoting import one_line

_LONGEST = 4000  # characters of a message


class LavenderError(Exception):
    """A fault that its user can mend. Scripts print the message alone, without a traceback, and exit with code 2.

    Whatever a file made part of it, the message is one line without control characters, and of bounded length.
    """

    def __str__(self) -> str:
        return one_line(super().__str__(), _LONGEST)


class ConfigError(LavenderError):
    """An option that is unknown, of the wrong type, outside its choices, or at odds with another."""


class DataError(LavenderError):
    """A data file that is missing, cut, or not what it should be."""


class WeightsError(LavenderError):
    """A checkpoint or a weights folder that is missing or does not fit the model."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """Somebody asked the run to stop, and it has saved what it goes on from; its message says where."""


class TrainingError(LavenderError):
    """A run that cannot go on: a loss that is not finite, an engine that is not installed."""
