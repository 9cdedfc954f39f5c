"""Tensors to tensors: Video Swin, text and fusion encoders, heads, weights."""
