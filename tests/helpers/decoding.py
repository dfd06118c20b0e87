"""What a reader does with a decoder, in one call."""

import numpy as np

from highway._core.jpeg import codec as jpeg


def decode_into(decoder, samples, windows, targets, filter_, exact, slots, out, mirrored=None):
    """Statuses of samples of the last read, decoded into slots of uint8 images (N, H, W, C)."""
    samples, windows = np.asarray(samples), np.asarray(windows, float)
    if mirrored is None:
        mirrored = np.zeros((len(samples), 2), bool)
    decoder.begin(samples, windows, np.asarray(targets, np.int32), mirrored, filter_, exact, out.shape[1:])
    return decoder.finish(np.asarray(slots), jpeg.Images(out))
