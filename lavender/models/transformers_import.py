"""Lazy import of transformers: it takes seconds, and most runs do not need it."""

from types import ModuleType

from lavender.runtime.torchvision_ops import ensure_torchvision


def transformers() -> ModuleType:
    """Imports transformers, also with a CPU-only torch, without its advice and progress bars."""
    ensure_torchvision()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
