"""Kernels read and write nothing beside their arrays: each array lies between pages that may not be touched."""

import ctypes
import itertools
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import highway
from highway._core import philox, simd
from highway._core.pixels import color, geometry, resample, values, warp
from highway._core.records.gather import gather, gather_planar

PAGE = mmap.PAGESIZE
ROOM = 4 * PAGE


class Guarded:
    """Memory with a forbidden page before and behind it."""

    def __init__(self):
        self.memory = mmap.mmap(-1, ROOM + 2 * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        for place in (self.address, self.address + PAGE + ROOM):
            if libc.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, shape, dtype, at_the_end):
        """An array that begins right behind the one page, or ends right before the other."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start = PAGE + (ROOM - size if at_the_end else 0)
        return np.frombuffer(self.memory, np.uint8)[start : start + size].view(dtype).reshape(shape)


def touch_with_colors(inputs, outputs):
    """Every operation, and a row of those that share a pass, over blocks of pixels and what is left."""
    programs = [[(code, 0.25 if code == color.HUE else 2)] for code in range(color.POSTERIZE + 1)]
    programs += [[(color.BRIGHTNESS, 0.7), (color.SATURATION, 1.5), (color.GAMMA, 1.5), (color.INVERT, 0)]]
    for variant, end in itertools.product(simd.VARIANTS, (False, True)):
        simd.use(variant)
        for width, size in itertools.product((1, 2, 5, 15, 31, 32, 33, 63, 65, 641), (1, 3)):
            images = inputs.array((1, 1, width, size), np.uint8, end)
            images[:] = 100
            out = outputs.array(images.shape, np.uint8, end)
            for program in programs:
                codes = np.array([[code for code, _ in program]], np.int32)
                arguments = np.array([[[value, 1] for _, value in program]], np.float32)
                color.run(images, codes, arguments, out)
                color.run(out, codes, arguments, out)


def touch_with_rows(inputs, outputs):
    """The first and the last rows, of all sizes for which copies differ, also in descending order."""
    ends = np.array([0, 2, 0, 2])
    for end, size in itertools.product((False, True), (*range(1, 70), 100, 128, 1000, 1024)):
        rows = inputs.array((4, size), np.uint8, end)
        rows[:] = 1
        for source, run in itertools.product((rows, rows[::-1]), (1, 2)):
            out = outputs.array((4, run * size), np.uint8, end)
            gather(source, ends, np.zeros(1, np.int64), run, out)
        gather(rows, np.array([0, 1]), np.array([2, 0]), 1, outputs.array((2, 2 * size), np.uint8, end))
        for channels, dtype in itertools.product((1, 3, 4), (np.uint8, np.uint32)):
            images = inputs.array((2, channels, min(size, 70)), dtype, end)
            out = outputs.array((2, min(size, 70), channels), dtype, end)
            gather_planar(images, np.array([1, 0]), out)


def touch_everything():
    inputs, outputs = Guarded(), Guarded()
    touch_with_colors(inputs, outputs)
    touch_with_rows(inputs, outputs)
    flags = np.ones(1, np.uint8)
    for variant, end in itertools.product(simd.VARIANTS, (False, True)):
        simd.use(variant)
        for width, size in itertools.product(range(1, 70), (1, 2, 3, 4, 5, 6, 7, 8, 12)):
            images = inputs.array((1, 1, width, size), np.uint8, end)
            images[:] = 1
            out = outputs.array(images.shape, np.uint8, end)
            geometry.flip_x(images, flags, out)
            geometry.flip_y(images, flags, out)
            geometry.flip_x_in_place(images, flags)
            geometry.flip_y_in_place(images, flags)
            fill = np.zeros(size, np.uint8)
            factors = inputs.array((size,), np.float32, not end)
            # Over the borders and inside, mirrored and not.
            for place in itertools.product((-1, 0), (-1, 0), (0, 1), (0, 1)):
                at = np.array([place], np.int64)
                geometry.windows(images, at, fill, out)
                for planar, shape in ((False, (1, 1, width, size)), (True, (1, size, 1, width))):
                    for dtype in (np.float32, np.uint16):
                        numbers = outputs.array(shape, dtype, end)
                        values.normalize_windows(images, at, fill, factors, factors, planar, numbers)
            for planar, shape in ((False, (1, 1, width, size)), (True, (1, size, 1, width))):
                for dtype in (np.float32, np.uint16):
                    numbers = outputs.array(shape, dtype, end)
                    values.normalize(images, factors, factors, planar, numbers)
            for rows, pixels, filter_ in ((3, 1, 0), (1, 9, 2), (2, width, 4)):
                out = outputs.array((1, rows, pixels, size), np.uint8, end)
                whole = np.array([[0.0, 0.0, width, 1.0]])
                target = np.array([[0, 0, pixels, rows]], np.int32)
                resample.resize_batch(images, whole, target, np.zeros((1, 2), np.uint8), filter_, out)
            geometry.transpose(images, flags, outputs.array((1, width, 1, size), np.uint8, end))
            # The same rows as an image of several, turned so that its corners are seen.
            for rows, angle in itertools.product((1, 2, 3), (0.1, 1.6, 3.2)):
                image = inputs.array((1, rows, width, size), np.uint8, end)
                cosine, sine = np.cos(angle), np.sin(angle)
                turn = np.array([[[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]])
                turn[0, :2, 2] = (width / 2, rows / 2) - turn[0, :2, :2] @ (width / 2, rows / 2)
                for interpolation in (warp.NEAREST, warp.BILINEAR):
                    out = outputs.array(image.shape, np.uint8, end)
                    warp.sample(image, turn, np.zeros((1, 0, 3)), fill, interpolation, out)
            philox.noise(0, 0, 0, np.zeros(1, np.uint32), out.reshape(1, -1))


def run(what):
    environment = os.environ | {"PYTHONPATH": str(Path(highway.__file__).parents[1])}
    command = [sys.executable, __file__, what]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_kernels_stay_inside_of_their_arrays():
    answer = run("kernels")
    assert answer.returncode == 0, answer.stderr


def test_the_guard_is_real():
    for what in ("before", "behind"):
        # A signal; with sanitizers, their report of it.
        answer = run(what)
        assert answer.returncode != 0
        assert "Traceback" not in answer.stderr


if __name__ == "__main__":
    match sys.argv[1]:
        case "kernels":
            touch_everything()
        case "before":
            print(Guarded().memory[PAGE - 1])
        case "behind":
            print(Guarded().memory[PAGE + ROOM])
