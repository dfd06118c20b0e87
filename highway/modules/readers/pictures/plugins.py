"""PIL's TIFF reader without PIL's size limit."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

__all__ = ["Tiff"]


class Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF of any size; the caller has checked its header."""

    def load_prepare(self) -> None:
        # PIL checks the size when it makes the image, but not of an existing one.
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size).im
        super().load_prepare()
