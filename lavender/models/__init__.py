"""Models: backbones, text and fusion encoders, heads, weights."""
