"""Frames as pictures that stand within a page or a notebook."""

import base64
import io

import numpy as np
from PIL import Image


def picture_address(frame: np.ndarray, width: int, height: int) -> str:
    """A frame (H, W, 3), uint8 RGB, made smaller where it is larger than this, as a `data:` address of a JPEG."""
    image = Image.fromarray(frame)
    image.thumbnail((width, height))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
