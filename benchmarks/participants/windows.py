"""Windows of a photograph, for peers whose user draws them."""

import math
import random

Window = tuple[int, int, int, int]


def centre_window(height: int, width: int, target_height: int, target_width: int) -> Window:
    """Return the largest centered window of the target's aspect ratio, as (top, left, height, width) in pixels."""
    window_height = min(height, round(width * target_height / target_width))
    window_width = min(width, round(height * target_width / target_height))
    return (height - window_height) // 2, (width - window_width) // 2, window_height, window_width


def random_window(rng: random.Random, height: int, width: int) -> Window:
    """Draw a window as torchvision does: area 0.08 to 1, ratio 3/4 to 4/3, as (top, left, height, width)."""
    limit = math.log(4 / 3)
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(-limit, limit))
        window_width = round(math.sqrt(area * ratio))
        window_height = round(math.sqrt(area / ratio))
        if 0 < window_width <= width and 0 < window_height <= height:
            top = rng.randint(0, height - window_height)
            left = rng.randint(0, width - window_width)
            return top, left, window_height, window_width
    ratio = min(max(width / height, 3 / 4), 4 / 3)
    window_height, window_width = min(height, round(width / ratio)), min(width, round(height * ratio))
    return (height - window_height) // 2, (width - window_width) // 2, window_height, window_width
