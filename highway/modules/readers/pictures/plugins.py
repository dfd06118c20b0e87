"""PIL's TIFF reader without PIL's size limit."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["tiff_plugin"]


@functools.cache
def tiff_plugin() -> Any:
    """PIL's class of a TIFF without its limit: a TIFF of any size; the caller has checked its header."""
    # Late: PIL is optional.
    from PIL import Image, TiffImagePlugin

    class Tiff(TiffImagePlugin.TiffImageFile):
        def load_prepare(self) -> None:
            # PIL checks the size when it makes an image, and accepts an image that exists already.
            if self._im is None:
                self.im = Image.new(self.mode, self._tile_size).im
            super().load_prepare()

    return Tiff
