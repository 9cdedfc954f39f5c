"""LAVENDER: unified video-language understanding as masked language modelling."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavender.inference.predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    """Imports heavy names, as in `from lavender import Predictor`, only on demand."""
    if name == "Predictor":
        from lavender.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
