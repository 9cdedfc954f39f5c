"""Tensors to tensors: backbones, text and fusion encoders, heads, weights."""
