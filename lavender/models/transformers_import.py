"""transformers, imported by who needs it, when it is needed: it takes seconds, and most runs do without."""

from types import ModuleType

from lavender.runtime.torchvision_ops import ensure_torchvision


def transformers() -> ModuleType:
    """The package, beside a CPU-only torch too, without its advice and bars on the screen."""
    ensure_torchvision()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
