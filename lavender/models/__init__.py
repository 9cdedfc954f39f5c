"""Tensors to tensors: Video Swin, text and fusion encoders, heads, weights."""

from lavender.runtime.torchvision_ops import ensure_torchvision

ensure_torchvision()  # before any module of this package imports timm or transformers
