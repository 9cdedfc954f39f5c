"""LAVENDER rebuilt: unified video-language understanding as masked language modelling."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavender.inference.predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    """`from lavender import Predictor` imports what is heavy when it is asked for, and not before."""
    if name == "Predictor":
        from lavender.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
