"""Files to pixels: reads a batch of files, decodes windows of its JPEGs into the slots of a batch; without the GIL."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint8_t

from highway._core cimport simd

cdef extern from "jpeg_decoder.h" nogil:
    enum: HW_OK, HW_NOT_JPEG, HW_NO_FILE, HW_NO_HANDLE, HW_BAD_FILE, HW_NO_MEMORY
    enum: HW_MESSAGE_SIZE

    ctypedef struct hw_jpeg:
        pass

    ctypedef struct hw_arena:
        uint8_t *bytes
        size_t capacity
        size_t used

    ctypedef struct hw_picture:
        int height
        int width
        int orientation

    ctypedef struct hw_target:
        double x0, y0, x1, y1
        int height, width, channels, filter, exact, simd
        uint8_t *out
        ptrdiff_t out_stride

    hw_jpeg *hw_jpeg_new()
    void hw_jpeg_free(hw_jpeg *decoder)
    int hw_jpeg_inspect(const uint8_t *bytes, size_t size, int oriented, int64_t max_pixels, hw_picture *picture,
                        char *message)
    int hw_jpeg_decode(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                       const hw_target *target, char *message)
    int64_t hw_jpeg_by_library(const hw_jpeg *decoder)
    void hw_arena_clear(hw_arena *arena)
    int hw_read_file(const char *path, size_t max_bytes, hw_arena *arena, size_t *offset, size_t *size, char *message)
    int hw_jpeg_library_version()

cdef extern from "resampler.h" nogil:
    enum: HW_FILTERS

cdef extern from "stdlib.h" nogil:
    void free(void *)

OK = HW_OK
NOT_JPEG = HW_NOT_JPEG
NO_FILE = HW_NO_FILE
NO_HANDLE = HW_NO_HANDLE
BAD_FILE = HW_BAD_FILE
NO_MEMORY = HW_NO_MEMORY


def library_version():
    """Version of libjpeg-turbo that the core was compiled with, as text: ``"2.1.5"``."""
    cdef int version = hw_jpeg_library_version()
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"


cdef struct Sample:
    const char *path
    size_t offset
    size_t size
    int status
    hw_picture picture
    char message[HW_MESSAGE_SIZE]


cdef void read_samples(
    Sample *samples, Py_ssize_t n, hw_arena *arena, size_t max_bytes, int64_t max_pixels, bint oriented
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        samples[i].message[0] = 0
        samples[i].offset = samples[i].size = 0
        samples[i].status = hw_read_file(
            samples[i].path, max_bytes, arena, &samples[i].offset, &samples[i].size, samples[i].message
        )
        if samples[i].status == HW_OK:
            samples[i].status = hw_jpeg_inspect(
                arena.bytes + samples[i].offset, samples[i].size, oriented, max_pixels, &samples[i].picture,
                samples[i].message,
            )


cdef void decode_samples(
    hw_jpeg *decoder, Sample *samples, const hw_arena *arena, const int64_t[::1] which, const double[:, ::1] windows,
    const int32_t[:, ::1] targets, const int64_t[::1] slots, hw_target target, uint8_t[:, :, :, ::1] out,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef Sample *sample
    target.channels = <int> out.shape[3]
    target.out_stride = out.shape[2] * out.shape[3]
    for i in range(which.shape[0]):
        sample = samples + which[i]
        target.x0 = windows[i, 0]
        target.y0 = windows[i, 1]
        target.x1 = windows[i, 2]
        target.y1 = windows[i, 3]
        target.width = targets[i, 2] - targets[i, 0]
        target.height = targets[i, 3] - targets[i, 1]
        target.out = &out[slots[i], targets[i, 1], targets[i, 0], 0]
        sample.status = hw_jpeg_decode(
            decoder, arena.bytes + sample.offset, sample.size, &sample.picture, &target, sample.message
        )


cdef class BatchDecoder:
    """Reads the files of one batch after the other and decodes those that are JPEGs.

    One belongs to one thread. The memory for the files is kept from batch to batch and freed by `close`.

    Parameters
    ----------
    max_bytes : int
        Largest file in bytes.
    max_pixels : int
        Largest picture, checked after the header and before any memory is taken for it.
    """

    cdef hw_jpeg *decoder
    cdef hw_arena arena
    cdef Sample *samples
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef size_t max_bytes
    cdef int64_t max_pixels
    cdef list paths

    def __cinit__(self, *, size_t max_bytes=1 << 30, int64_t max_pixels=1 << 28):
        self.max_bytes = max_bytes
        self.max_pixels = max_pixels
        self.decoder = hw_jpeg_new()
        if self.decoder is NULL:
            raise MemoryError("BatchDecoder: libjpeg could not be set up")

    def __dealloc__(self):
        self._free()

    cdef void _free(self) noexcept:
        hw_jpeg_free(self.decoder)
        self.decoder = NULL
        free(self.arena.bytes)
        self.arena.bytes = NULL
        self.arena.capacity = self.arena.used = 0
        PyMem_RawFree(self.samples)
        self.samples = NULL
        self.count = self.capacity = 0

    def close(self):
        """Free everything; a second call does nothing. Every other method raises ValueError from then on."""
        self._free()

    cdef int _check(self, Py_ssize_t i=0, bint indexed=False) except -1:
        if self.decoder is NULL:
            raise ValueError("BatchDecoder: it was closed")
        if indexed and not 0 <= i < self.count:
            raise IndexError(f"BatchDecoder: sample {i} of {self.count}")
        return 0

    @property
    def by_library(self):
        """How many pictures were left to libjpeg: those at a reduced scale, and all but sound sequential ones."""
        self._check()
        return hw_jpeg_by_library(self.decoder)

    def read(self, list paths not None, bint oriented=True):
        """Read whole files and the headers of those that are JPEGs.

        Parameters
        ----------
        paths : list of bytes
        oriented : bool
            Whether the EXIF orientation counts.

        Returns
        -------
        list of (status, height, width)
            Status `OK`: a JPEG with an upright picture of that size. `NOT_JPEG`: see `contents`; otherwise see
            `message`. Sizes are 0 where they are not known.
        """
        self._check()
        cdef Py_ssize_t n = len(paths), i
        cdef Sample *grown
        if n > self.capacity:
            grown = <Sample *> PyMem_RawRealloc(self.samples, n * sizeof(Sample))
            if grown is NULL:
                raise MemoryError(f"BatchDecoder: no memory for {n} samples")
            self.samples = grown
            self.capacity = n
        self.count = 0
        for i in range(n):
            self.samples[i].path = PyBytes_AsString(paths[i])
        self.paths = paths
        hw_arena_clear(&self.arena)
        with nogil:
            read_samples(self.samples, n, &self.arena, self.max_bytes, self.max_pixels, oriented)
        self.count = n
        return [
            (
                self.samples[i].status,
                self.samples[i].picture.height if self.samples[i].status == HW_OK else 0,
                self.samples[i].picture.width if self.samples[i].status == HW_OK else 0,
            )
            for i in range(n)
        ]

    def contents(self, Py_ssize_t i):
        """The bytes of file `i` of the last `read`."""
        self._check(i, True)
        return PyBytes_FromStringAndSize(
            <const char *> self.arena.bytes + self.samples[i].offset, <Py_ssize_t> self.samples[i].size
        )

    def message(self, Py_ssize_t i):
        """What is wrong with file `i`: what was found and what was expected."""
        self._check(i, True)
        return self.samples[i].message.decode("utf-8", "replace")

    def decode(
        self,
        const int64_t[::1] samples not None,
        const double[:, ::1] windows not None,
        const int32_t[:, ::1] targets not None,
        int filter,
        bint exact,
        const int64_t[::1] slots not None,
        uint8_t[:, :, :, ::1] out not None,
    ):
        """Decode windows of JPEGs of the last `read` into slots of a batch.

        Parameters
        ----------
        samples : int64 (K,)
            Which files; their status is `OK`.
        windows : float64 (K, 4)
            x0, y0, x1, y1 in pixels of the upright picture, within it; need not be whole numbers.
        targets : int32 (K, 4)
            x0, y0, x1, y1 in pixels of the output. What is outside of them is left as it is.
        filter : int
            Index into `resample.FILTERS`.
        exact : bool
            Never decode at a reduced scale.
        slots : int64 (K,)
            Which images of `out`.
        out : uint8 (N, H, W, C)
            C is 3 (RGB) or 1 (grey).

        Returns
        -------
        list of int
            Status of each; where it is not `OK`, see `message`, and the target's pixels mean nothing.

        Raises
        ------
        ValueError
            Where shapes disagree or a rectangle is empty or outside of its picture.
        """
        self._check()
        cdef Py_ssize_t n = samples.shape[0], i
        cdef hw_target target
        cdef hw_picture *picture
        if windows.shape[0] != n or targets.shape[0] != n or slots.shape[0] != n:
            raise ValueError(
                f"BatchDecoder: {n} samples, {windows.shape[0]} windows, {targets.shape[0]} targets and "
                f"{slots.shape[0]} slots; these must be equal"
            )
        if windows.shape[1] != 4 or targets.shape[1] != 4:
            raise ValueError(f"BatchDecoder: rectangles of {windows.shape[1]} and {targets.shape[1]} numbers, not 4")
        if out.shape[3] != 1 and out.shape[3] != 3:
            raise ValueError(f"BatchDecoder: output of {out.shape[3]} channels; expected 1 (grey) or 3 (RGB)")
        if not 0 <= filter < HW_FILTERS:
            raise ValueError(f"BatchDecoder: filter {filter}; expected 0..{HW_FILTERS - 1}")
        for i in range(n):
            if not 0 <= samples[i] < self.count or self.samples[samples[i]].status != HW_OK:
                raise ValueError(f"BatchDecoder: sample {samples[i]} is not a JPEG that was read")
            if not 0 <= slots[i] < out.shape[0]:
                raise ValueError(f"BatchDecoder: slot {slots[i]} of {out.shape[0]}")
            picture = &self.samples[samples[i]].picture
            if not (  # written so that a NaN fails
                windows[i, 0] >= 0 and windows[i, 1] >= 0
                and windows[i, 2] <= picture.width and windows[i, 3] <= picture.height
                and windows[i, 2] > windows[i, 0] and windows[i, 3] > windows[i, 1]
                and targets[i, 0] >= 0 and targets[i, 1] >= 0
                and targets[i, 2] <= out.shape[2] and targets[i, 3] <= out.shape[1]
                and targets[i, 2] > targets[i, 0] and targets[i, 3] > targets[i, 1]
            ):
                raise ValueError(
                    f"BatchDecoder: window {[windows[i, k] for k in range(4)]} of a picture of {picture.height} x "
                    f"{picture.width} or target {[targets[i, k] for k in range(4)]} in {out.shape[1]} x "
                    f"{out.shape[2]} is empty or not inside (x0, y0, x1, y1)"
                )
        target.filter = filter
        target.exact = exact
        target.simd = simd.level
        with nogil:
            decode_samples(
                self.decoder, self.samples, &self.arena, samples, windows, targets, slots, target, out
            )
        return [self.samples[samples[i]].status for i in range(n)]
