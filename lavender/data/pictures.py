"""Frames as pictures embedded in a page or notebook."""

import base64
import io

import numpy as np
from PIL import Image


def picture_address(frame: np.ndarray, width: int, height: int) -> str:
    """Encodes a frame (H, W, 3), uint8 RGB, as a JPEG `data:` URL, scaled down to at most this size."""
    image = Image.fromarray(frame)
    image.thumbnail((width, height))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
