"""Counts what would stop the host on a GPU: reads of tensors, sizes that depend on values, copies of host numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_OPERATIONS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "lift_fresh"}
_METHODS = ("tolist", "numpy", "cpu")


class _Watched(TorchDispatchMode):
    def __init__(self, seen: list[str]):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if by_mask or name in _OPERATIONS or name.startswith(("unique", "_unique")):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@contextmanager
def host_reads() -> Iterator[list[str]]:
    """While it lasts, what stops the host is written into the list, by name."""
    seen: list[str] = []

    def counting(name: str, method: Any) -> Any:
        def call(tensor: Tensor, *args: Any, **options: Any) -> Any:
            seen.append(name)
            return method(tensor, *args, **options)

        return call

    patches = [mock.patch.object(Tensor, name, counting(name, getattr(Tensor, name))) for name in _METHODS]
    for patch in patches:
        patch.start()
    try:
        with _Watched(seen):
            yield seen
    finally:
        for patch in patches:
            patch.stop()
