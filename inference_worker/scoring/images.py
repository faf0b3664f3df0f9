"""Encoded pictures to the arrays that a model declares: [height, width, 3], or with the colours first."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from common.errors import ConfigError
from common.tensor import Array, numpy_dtype
from inference_worker.models.spec import TensorSpec

#: How many colours a picture may have, and Pillow's name for such a picture.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode_image(data: Any, tensor: TensorSpec) -> Array:
    """A picture as the input takes it: resized to its declared size; for a float dtype from 0 to 1.

    Raises ValueError for what is no picture, ConfigError for an input that holds none.
    """
    if not isinstance(data, bytes):
        raise ValueError("is null")
    from PIL import Image, UnidentifiedImageError

    colours, first, (height, width) = _layout(tensor)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert(_MODES[colours])
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"is no picture: {error}") from error
    size = (width if width > 0 else picture.width, height if height > 0 else picture.height)
    picture = picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(picture).reshape(size[1], size[0], colours)
    pixels = pixels.transpose(2, 0, 1) if first else pixels
    dtype = numpy_dtype(tensor.dtype)
    return (pixels / 255).astype(dtype) if dtype.kind == "f" else pixels.astype(dtype)


def _layout(tensor: TensorSpec) -> tuple[int, bool, tuple[int, int]]:
    """(colours, whether they come first, (height, width)) of a declared input."""
    shape = tensor.shape
    if len(shape) == 3 and shape[2] in _MODES:
        return shape[2], False, (shape[0], shape[1])
    if len(shape) == 3 and shape[0] in _MODES:
        return shape[0], True, (shape[1], shape[2])
    raise ConfigError(
        f"the input {tensor} holds no picture: its shape must be [height, width, colours] or [colours, height, width], "
        "with 1, 3 or 4 colours"
    )
