"""Errors of faulty input, as one line: what is wrong, in which file, line or key, and what to do."""

from lavender.runtime.quoting import one_line

_LONGEST = 4000  # maximum characters of a message


class LavenderError(Exception):
    """Error that the user can fix. Scripts print only its message, without a traceback, and exit with code 2.

    The message is always one line of bounded length without control characters, even if it quotes a file.
    """

    def __str__(self) -> str:
        return one_line(super().__str__(), _LONGEST)


class ConfigError(LavenderError):
    """An option is unknown, of the wrong type, outside its choices, or in conflict with another."""


class DataError(LavenderError):
    """A data file is missing, truncated or malformed."""


class WeightsError(LavenderError):
    """A checkpoint or weights folder is missing or does not fit the model."""


class Stopped(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop and has saved its state; the message says where."""


class TrainingError(LavenderError):
    """A run cannot continue: e.g. a loss is not finite, or an engine is not installed."""
