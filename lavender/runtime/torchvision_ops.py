"""Makes `import torchvision` work beside a CPU-only torch."""

import sys

import torch

# torchvision registers Python kernels for these operators while it is imported. Its registry wheel defines them in a
# CUDA library, which does not load beside a CPU-only torch; a schema without a kernel is enough for the import.
_MISSING_ERROR = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declarations: list[torch.library.Library] = []  # a Library that is dropped takes its schemas with it


def ensure_torchvision() -> None:
    """Imports torchvision, declaring the operators that its compiled part failed to declare only where it must.

    Call it before torchvision, timm or transformers' models are imported. Calling it again costs nothing.

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
