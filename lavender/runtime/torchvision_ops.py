"""Support for `import torchvision` with a CPU-only torch."""

import sys

import torch

# torchvision registers Python kernels for these operators while it is imported. Its registry wheel defines them in a
# CUDA library, which does not load with a CPU-only torch; a schema without a kernel is enough for the import.
_MISSING_ERROR = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declarations: list[torch.library.Library] = []  # a deleted Library removes its schemas


def ensure_torchvision() -> None:
    """Imports torchvision; if its compiled part fails, declares its missing operators first.

    Call it before importing torchvision, timm or models of transformers. Further calls cost nothing.

    Raises:
        ImportError, RuntimeError: torchvision is not installed, or fails for another reason.
    """
    if "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if _MISSING_ERROR not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _declarations.append(library)
        import torchvision  # noqa: F401
