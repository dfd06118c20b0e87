"""PIL's reader of TIFF without the limit that PIL puts on pictures."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

__all__ = ["Tiff"]


class Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF of any size: whoever opens it has looked at its header."""

    def load_prepare(self) -> None:
        # PIL checks the size when it makes the image; one that is there already it takes.
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size).im
        super().load_prepare()
