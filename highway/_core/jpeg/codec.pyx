"""Reads the files of a batch and decodes windows of its pictures into images, without the GIL."""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memset

import numpy as np

from highway._core cimport simd
from highway._core.pixels.windows cimport HW_BFLOAT16, HW_FLOAT16, HW_FLOAT32, hw_normalization

from highway.errors import QueueClosed


cdef extern from "buffer.h" nogil:
    ctypedef struct hw_buffer:
        uint8_t *bytes

    void hw_buffer_free(hw_buffer *buffer)

cdef extern from "resampler.h" nogil:
    enum: HW_FILTERS

cdef extern from "files.h" nogil:
    enum: HW_OK, HW_NOT_JPEG, HW_REFUSED, HW_NO_FILE, HW_NO_HANDLE, HW_STORAGE, HW_UNTRIED, HW_BAD_FILE, HW_NO_MEMORY
    enum: HW_MESSAGE_SIZE
    enum: HW_WHOLE

    ctypedef struct hw_range:
        int64_t start
        size_t size

    int hw_file_failure(int number)
    int hw_file_read(
        const char *path, hw_range range, size_t max_bytes, hw_buffer *buffer, size_t *got, char *message
    )

cdef extern from "orientation.h" nogil:
    ctypedef struct hw_part:
        const uint8_t *bytes
        size_t size

    ctypedef struct hw_metadata:
        hw_part exif[1]
        int exif_parts
        hw_part xmp

    int hw_orientation(const hw_metadata *metadata)

cdef extern from "header.h" nogil:
    enum: HW_JPEG, HW_PNG, HW_WEBP

    ctypedef struct hw_picture:
        int height
        int width
        int orientation

cdef extern from "drawing.h" nogil:
    ctypedef struct hw_image:
        void *data
        int height, width, channels
        const hw_normalization *normalization

    ctypedef struct hw_target:
        double x0, y0, x1, y1
        int left, top, height, width, mirror_x, mirror_y, channels, filter, exact, simd, wide

cdef extern from "decoders.h" nogil:
    ctypedef struct hw_decoders:
        pass

    hw_decoders *hw_decoders_new()
    void hw_decoders_free(hw_decoders *decoders)
    int64_t hw_decoders_by_library(const hw_decoders *decoders)
    int hw_decoders_version(int format, char *text, size_t n)

cdef extern from "jpeg_encoder.h" nogil:
    int hw_jpeg_encode(
        const uint8_t *pixels, Py_ssize_t stride, int height, int width, int channels, int quality, uint8_t **file,
        size_t *size, char *message
    )

cdef extern from "crew.h" nogil:
    enum: HW_AHEAD, HW_MOST_VIEWS

    ctypedef struct hw_sample:
        const char *path
        hw_range range
        const uint8_t *bytes
        uint8_t *kept
        size_t size
        int status
        hw_picture picture
        hw_target *targets
        Py_ssize_t slot
        char message[HW_MESSAGE_SIZE]

    ctypedef struct hw_job:
        hw_sample *samples
        int64_t turn
        const int64_t *chosen
        int count
        size_t bytes
        int views
        hw_image images[HW_MOST_VIEWS]
        size_t image_bytes[HW_MOST_VIEWS]
        size_t max_bytes
        int64_t max_pixels
        int oriented
        hw_buffer ahead[HW_AHEAD]

    ctypedef struct hw_crew:
        pass

    ctypedef struct hw_worker:
        hw_decoders *decoders
        hw_buffer file

    void hw_sample_release(hw_sample *sample)
    hw_crew *hw_crew_new()
    void hw_crew_free(hw_crew *crew)
    void hw_crew_resize(hw_crew *crew, int change)
    void hw_crew_close(hw_crew *crew)
    int hw_crew_join(hw_crew *crew, hw_job *job, hw_worker *worker, int count)
    int hw_crew_begin(hw_crew *crew, hw_job *job, hw_worker *worker)
    int hw_crew_ahead(hw_crew *crew, hw_job *job, hw_worker *worker)
    int hw_crew_finish(hw_crew *crew, hw_job *job, hw_worker *worker)
    void hw_crew_leave(hw_crew *crew, hw_job *job)


cdef enum:
    LONGEST_SIDE = 1 << 16  # of an image
    LONGEST_JPEG = 65500  # limit of libjpeg
    UNUSED = -1  # slot of an unused sample

cdef uint8_t NOTHING = 0

OK = HW_OK
NOT_JPEG = HW_NOT_JPEG
REFUSED = HW_REFUSED
NO_FILE = HW_NO_FILE
NO_HANDLE = HW_NO_HANDLE
STORAGE = HW_STORAGE
UNTRIED = HW_UNTRIED
BAD_FILE = HW_BAD_FILE
NO_MEMORY = HW_NO_MEMORY
MOST_VIEWS = HW_MOST_VIEWS


def library_versions():
    """Return the versions of the libraries that decode, by format, such as ``{"JPEG": "2.1.5", ...}``.

    The libraries are libjpeg-turbo, libdeflate and libwebp. None: the core was compiled without the library.
    """
    cdef char text[32]
    versions = {}
    for name, format in (("JPEG", HW_JPEG), ("PNG", HW_PNG), ("WebP", HW_WEBP)):
        versions[name] = text.decode() if hw_decoders_version(format, text, sizeof(text)) else None
    return versions


def orientation(bytes exif, bytes xmp):
    """Return the EXIF orientation, 1 to 8, in the metadata of a picture; 1 if it has none. Without the GIL.

    Parameters
    ----------
    exif : bytes or None
        EXIF data of any format: a TIFF file, with or without ``Exif\\0\\0`` before it.
    xmp : bytes or None
        Used if `exif` has no orientation.
    """
    cdef hw_metadata metadata
    cdef int found
    metadata.exif_parts = 0
    metadata.xmp = hw_part(NULL, 0)
    if exif is not None:
        metadata.exif_parts = 1
        metadata.exif[0] = hw_part(<const uint8_t *> PyBytes_AsString(exif), len(exif))
    if xmp is not None:
        metadata.xmp = hw_part(<const uint8_t *> PyBytes_AsString(xmp), len(xmp))
    with nogil:
        found = hw_orientation(&metadata)
    return found


def failure(int number):
    """Classify a system error of reading a file by its `errno`.

    Returns
    -------
    int
        `STORAGE`: the storage fails, perhaps temporarily. `NO_HANDLE`: the machine has no file handles or memory left.
        `NO_FILE`: the file cannot be read; a retry does not help.
    """
    return hw_file_failure(number)


def encode(const uint8_t[:, :, :] pixels not None, int quality):
    """Encode a picture as a JPEG file, without the GIL.

    Parameters
    ----------
    pixels : uint8 (H, W, C), rows packed
        C is 3 (RGB; the file has colors of half the height and width) or 1 (gray). Sides are 1 to 65500.
    quality : int
        1 to 100, as libjpeg scales its tables.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        The picture or the quality is out of range.
    MemoryError
    """
    cdef Py_ssize_t height = pixels.shape[0], width = pixels.shape[1], channels = pixels.shape[2]
    cdef uint8_t *file = NULL
    cdef size_t size = 0
    cdef int status
    cdef char message[HW_MESSAGE_SIZE]
    if not (1 <= height <= LONGEST_JPEG and 1 <= width <= LONGEST_JPEG and (channels == 1 or channels == 3)):
        raise ValueError(f"jpeg.encode: a picture of {height} x {width} x {channels}; expected 1 to {LONGEST_JPEG} "
                         "pixels on a side, and 1 or 3 channels")
    if (channels > 1 and pixels.strides[2] != 1) or (width > 1 and pixels.strides[1] != channels):
        raise ValueError(
            f"jpeg.encode: strides {pixels.strides[1]} and {pixels.strides[2]} in a row of {channels} channels; "
            "expected packed rows, copy the array first"
        )
    if not 1 <= quality <= 100:
        raise ValueError(f"jpeg.encode: quality is {quality}; expected 1 to 100")
    with nogil:
        status = hw_jpeg_encode(
            &pixels[0, 0, 0], pixels.strides[0], <int> height, <int> width, <int> channels, quality, &file, &size,
            message,
        )
    if status == HW_NO_MEMORY:
        raise MemoryError("jpeg.encode: no memory for the file")
    if status != HW_OK:
        raise ValueError(f"jpeg.encode: a picture {message.decode('utf-8', 'replace')}")
    try:
        return PyBytes_FromStringAndSize(<const char *> file, <Py_ssize_t> size)
    finally:
        free(file)


cdef class Images:
    """The images of a batch as targets of decoding: samples, or numbers computed from bytes.

    Parameters
    ----------
    images : ndarray
        Each image is C-contiguous, and the images are at equal distances: one view of an array of all views is valid
        too. uint8 or uint16 (N, H, W, C); or with `scale` and `bias` float32, or the bits of float16 as
        uint16, or of bfloat16 as int16, (N, C, H, W) where `planar`, (N, H, W, C) where not. C is 3 (RGB) or 1 (gray).
    scale, bias : float32 (C,), optional
        A byte becomes ``byte * scale + bias``, in float32, both operations rounded.
    planar : bool

    Raises
    ------
    ValueError
        The array has another type or shape.
    """

    cdef Py_buffer view
    cdef hw_normalization normalization
    cdef hw_image first
    cdef Py_ssize_t count
    cdef Py_ssize_t image_bytes  # from one image to the next
    cdef bint wide
    cdef const float[::1] scale
    cdef const float[::1] bias

    def __cinit__(self, images not None, const float[::1] scale=None, const float[::1] bias=None, bint planar=False):
        cdef int c, h, w, i
        PyObject_GetBuffer(images, &self.view, PyBUF_STRIDES | PyBUF_WRITABLE | PyBUF_FORMAT)
        format = (<bytes> self.view.format).decode() if self.view.format is not NULL else "B"
        if self.view.ndim != 4 or format not in (("f", "H", "h") if scale is not None else ("B", "H")):
            raise ValueError(
                f"Images: {self.view.ndim} dimensions of type {format!r}; expected 4 of "
                + ("float32, uint16 or int16" if scale is not None else "uint8 or uint16")
            )
        if planar and scale is None:
            raise ValueError("Images: samples are not planar; give scale and bias")
        if max(self.view.shape[1], self.view.shape[2], self.view.shape[3]) > LONGEST_SIDE:
            raise ValueError(f"Images: a side of more than {LONGEST_SIDE}")
        self.image_bytes = self.view.itemsize
        for i in range(3, 0, -1):
            if self.view.shape[i] > 1 and self.view.strides[i] != self.image_bytes:
                raise ValueError("Images: the images are not C-contiguous")
            self.image_bytes *= self.view.shape[i]
        if self.view.shape[0] > 1:
            if self.view.strides[0] < self.image_bytes:
                raise ValueError(
                    f"Images: the images begin every {self.view.strides[0]} bytes; expected at least their size, "
                    f"{self.image_bytes}"
                )
            self.image_bytes = self.view.strides[0]
        c, h, w = (1, 2, 3) if planar else (3, 1, 2)
        self.count = self.view.shape[0]
        self.wide = scale is None and format == "H"
        self.first.data = self.view.buf
        self.first.height = <int> self.view.shape[h]
        self.first.width = <int> self.view.shape[w]
        self.first.channels = <int> self.view.shape[c]
        if self.first.channels != 1 and self.first.channels != 3:
            raise ValueError(f"Images: {self.first.channels} channels; expected 1 (gray) or 3 (RGB)")
        if scale is not None:
            if bias is None or scale.shape[0] != self.first.channels or bias.shape[0] != self.first.channels:
                raise ValueError(f"Images: scale and bias need a number for each of {self.first.channels} channels")
            self.scale, self.bias = scale, bias
            self.normalization.scale = &scale[0]
            self.normalization.bias = &bias[0]
            self.normalization.type = HW_FLOAT32 if format == "f" else HW_FLOAT16 if format == "H" else HW_BFLOAT16
            self.normalization.planar = planar
            self.first.normalization = &self.normalization

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef class Crew:
    """The decoders of one reader, which share the work on batches; see `BatchDecoder`."""

    cdef hw_crew *crew

    def __cinit__(self):
        self.crew = hw_crew_new()
        if self.crew is NULL:
            raise MemoryError("Crew: no memory for a lock")

    def __dealloc__(self):
        hw_crew_free(self.crew)

    def close(self):
        """Wake all decoders that wait for their turn; `BatchDecoder.begin` raises QueueClosed from then on."""
        hw_crew_close(self.crew)


# If the garbage collector cleared it, it could no longer leave its crew.
@cython.no_gc_clear
cdef class BatchDecoder:
    """Reads the files of batches, one batch after the other, and decodes the pictures.

    Each thread has its own decoder. Decoders of one crew share their batches in the order of their turns: each helps
    with the batches that are due before its own. Call `read`, `begin` and `finish` for every batch; after `read`, a
    batch blocks later batches until it is finished or left.

    Parameters
    ----------
    crew : Crew, optional
    max_bytes : int
        Largest file in bytes.
    max_pixels : int
        Maximum pixels of a picture, checked after reading the header, before allocating memory.
    """

    cdef Crew crew
    cdef hw_worker worker
    cdef hw_job job
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef list files  # paths or contents; the samples point to them
    cdef readonly bint sound  # every file of the last read has status OK
    cdef const int64_t[::1] chosen
    cdef bint wide  # whether the batch that was begun has 16-bit numbers
    cdef hw_target *targets  # of the batch that was begun: the views of each sample, one sample after the other
    cdef Py_ssize_t target_capacity

    def __cinit__(self, Crew crew=None, *, size_t max_bytes=1 << 30, int64_t max_pixels=1 << 28):
        self.crew = Crew() if crew is None else crew
        self.job.max_bytes = max_bytes
        self.job.max_pixels = max_pixels
        self.worker.decoders = hw_decoders_new()
        if self.worker.decoders is NULL:
            raise MemoryError("BatchDecoder: no memory for the decoders")
        hw_crew_resize(self.crew.crew, 1)

    def __dealloc__(self):
        self._free()

    cdef void _free(self) noexcept:
        cdef int i
        if self.worker.decoders is NULL:
            return
        hw_crew_leave(self.crew.crew, &self.job)
        self._release()
        hw_crew_resize(self.crew.crew, -1)
        hw_decoders_free(self.worker.decoders)
        self.worker.decoders = NULL
        hw_buffer_free(&self.worker.file)
        for i in range(HW_AHEAD):
            hw_buffer_free(&self.job.ahead[i])
        PyMem_RawFree(self.job.samples)
        PyMem_RawFree(self.targets)
        self.job.samples = NULL
        self.targets = NULL
        self.count = self.capacity = self.target_capacity = 0

    def close(self):
        """Free everything; a second call does nothing. Every other method raises ValueError from then on."""
        self._free()

    cdef int _check(self, Py_ssize_t i=0, bint indexed=False) except -1:
        if self.worker.decoders is NULL:
            raise ValueError("BatchDecoder: it was closed")
        if indexed and not 0 <= i < self.count:
            raise IndexError(f"BatchDecoder: sample {i} of {self.count}")
        return 0

    cdef int _refuse_closed(self) except -1:
        self.leave()
        raise QueueClosed("BatchDecoder: its crew was closed")

    @property
    def by_library(self):
        """Number of JPEGs decoded by libjpeg: those at a reduced scale, and all but sound sequential ones."""
        self._check()
        return hw_decoders_by_library(self.worker.decoders)

    def read(self, list paths not None, bint oriented=True, int64_t turn=0):
        """Read the headers of files, and prefetch the files.

        Parameters
        ----------
        paths : list of bytes
        oriented : bool
            Apply the orientation in the metadata of a picture.
        turn : int
            The batch is due before those of the crew with higher numbers.

        Returns
        -------
        int64 (N, 3)
            Status, height and width. Status `OK`: an upright picture of that size, which the decoder decodes.
            `NOT_JPEG`: a format that it does not decode, a PNG with compressed metadata, or no picture. `REFUSED`: a
            PNG or WebP that is not sound, which a more lenient decoder may decode. `contents` returns these two;
            otherwise see `message`. Sizes are 0 where they are not known. `STORAGE`: a later read may
            succeed. The files after it are not tried: their status is `UNTRIED`.

        Raises
        ------
        QueueClosed
            The crew was closed.
        """
        cdef Py_ssize_t i
        self._make_room(len(paths))
        self.files = list(paths)
        for i in range(len(paths)):
            self.job.samples[i].path = PyBytes_AsString(self.files[i])
            self.job.samples[i].range = hw_range(HW_WHOLE, 0)
        return self._read_heads(len(paths), oriented, turn)

    def read_ranges(
        self,
        list paths not None,
        const int64_t[::1] starts not None,
        const int64_t[::1] sizes not None,
        bint oriented=True,
        int64_t turn=0,
    ):
        """Read the headers of files that are ranges of other files, and prefetch the ranges.

        Parameters
        ----------
        paths : list of bytes
            Path of the file with each range; several ranges may have the same.
        starts, sizes : int64 (N,)
            First byte, and number of bytes; not negative.
        oriented, turn
            As `read` says.

        Returns
        -------
        int64 (N, 3)
            As `read` says. A range that does not lie in its file has the status `BAD_FILE`.

        Raises
        ------
        QueueClosed
            The crew was closed.
        ValueError
            Lengths differ, or a number is negative.
        """
        cdef Py_ssize_t i, n = len(paths)
        if starts.shape[0] != n or sizes.shape[0] != n:
            raise ValueError(
                f"BatchDecoder: {n} paths, {starts.shape[0]} starts and {sizes.shape[0]} sizes; expected as many"
            )
        for i in range(n):
            if starts[i] < 0 or sizes[i] < 0:
                raise ValueError(f"BatchDecoder: range {i} is {sizes[i]} bytes from {starts[i]} on; expected 0 or more")
        self._make_room(n)
        self.files = list(paths)
        for i in range(n):
            self.job.samples[i].path = PyBytes_AsString(self.files[i])
            self.job.samples[i].range = hw_range(starts[i], <size_t> sizes[i])
        return self._read_heads(n, oriented, turn)

    def read_contents(self, list contents not None, bint oriented=True, int64_t turn=0):
        """Read the headers of files in memory, as `read` does for files on disk.

        Parameters
        ----------
        contents : list of bytes, read-only memoryview of uint8, or None
            None skips the file: its status is `NO_FILE`.
        oriented, turn
            As `read` says.

        Returns
        -------
        int64 (N, 3)
            As `read` says.

        Raises
        ------
        QueueClosed
            The crew was closed.
        """
        cdef Py_ssize_t i
        cdef hw_sample *sample
        cdef const uint8_t[::1] view
        self._make_room(len(contents))
        self.files = list(contents)
        for i in range(len(contents)):
            sample = &self.job.samples[i]
            sample.path = NULL
            sample.bytes = NULL
            sample.size = 0
            if self.files[i] is not None:
                view = self.files[i]
                sample.size = view.shape[0]
                # Empty files have no first byte.
                sample.bytes = &view[0] if sample.size else <const uint8_t *> &NOTHING
        return self._read_heads(len(contents), oriented, turn)

    cdef int _make_room(self, Py_ssize_t n) except -1:
        cdef hw_sample *grown
        cdef Py_ssize_t i
        self._check()
        self.leave()
        self._release()
        self.count = 0
        if n > self.capacity:
            grown = <hw_sample *> PyMem_RawRealloc(self.job.samples, n * sizeof(hw_sample))
            if grown is NULL:
                raise MemoryError(f"BatchDecoder: no memory for {n} samples")
            self.job.samples = grown
            for i in range(self.capacity, n):
                grown[i].kept = NULL
            self.capacity = n
        return 0

    cdef void _release(self) noexcept:
        """Free what the samples of the last read keep."""
        cdef Py_ssize_t i
        for i in range(self.capacity):
            hw_sample_release(&self.job.samples[i])

    cdef _read_heads(self, Py_ssize_t n, bint oriented, int64_t turn):
        cdef Py_ssize_t i
        cdef int closed
        self.job.oriented = oriented
        self.job.turn = turn
        self.job.count = 0
        with nogil:
            closed = hw_crew_join(self.crew.crew, &self.job, &self.worker, <int> n)
        if closed:
            self._refuse_closed()
        self.count = n
        found = np.zeros((n, 3), np.int64)
        cdef int64_t[:, ::1] heads = found
        self.sound = True
        for i in range(n):
            heads[i, 0] = self.job.samples[i].status
            if heads[i, 0] != HW_OK:
                self.sound = False
            else:
                heads[i, 1] = self.job.samples[i].picture.height
                heads[i, 2] = self.job.samples[i].picture.width
        return found

    def contents(self, Py_ssize_t i):
        """Return the bytes of file `i` of the last `read`, or None on failure; see `status` and `message`."""
        self._check(i, True)
        cdef hw_sample *sample = &self.job.samples[i]
        cdef size_t size
        cdef int status
        if sample.path is NULL:
            return None if self.files[i] is None else bytes(self.files[i])
        if sample.kept is not NULL:
            found = PyBytes_FromStringAndSize(<const char *> sample.kept, <Py_ssize_t> sample.size)
            hw_sample_release(sample)
            return found
        with nogil:
            status = hw_file_read(
                sample.path, sample.range, self.job.max_bytes, &self.worker.file, &size, sample.message
            )
        if status != HW_OK:
            sample.status = status
            return None
        return PyBytes_FromStringAndSize(<const char *> self.worker.file.bytes, <Py_ssize_t> size)

    def orientations(self):
        """Return the EXIF orientation, 1 to 8, that turns each picture of the last `read` upright: int64 (N,).

        1 if orientation is ignored, or the status of the file is not `OK`.
        """
        self._check()
        cdef Py_ssize_t i
        found = np.ones(self.count, np.int64)
        cdef int64_t[::1] orientations = found
        for i in range(self.count):
            if self.job.samples[i].status == HW_OK:
                orientations[i] = self.job.samples[i].picture.orientation
        return found

    def status(self, Py_ssize_t i):
        """Return the current status of file `i`."""
        self._check(i, True)
        return self.job.samples[i].status

    def message(self, Py_ssize_t i):
        """Return what is wrong with file `i`: what was found and what was expected."""
        self._check(i, True)
        return self.job.samples[i].message.decode("utf-8", "replace")

    def begin(
        self,
        const int64_t[::1] samples not None,
        const double[:, ::1] windows not None,
        const int32_t[:, ::1] targets not None,
        mirrored not None,
        int filter,
        bint exact,
        tuple size not None,
        size_t nbytes=0,
        bint wide=False,
    ):
        """Set the windows of the pictures of the last `read`, and help other batches until this batch's turn.

        Parameters
        ----------
        samples : int64 (K,)
            Which files; their status is `OK`.
        windows : float64 (K, 4)
            x0, y0, x1, y1 in pixels of the upright picture, within it; need not be whole numbers.
        targets : int32 (K, 4)
            x0, y0, x1, y1 in pixels of the image. Pixels outside of them are unchanged.
        mirrored : bool (K, 2)
            Whether the image, its target with it, is mirrored left to right, and top to bottom.
        filter : int
            Index into `resample.FILTERS`.
        exact : bool
            Never decode a JPEG at a reduced scale.
        size : (int, int, int)
            Height, width and channels of the images: 3 (RGB) or 1 (gray).
        nbytes : int
            Bytes of the whole batch: the crew works on fewer large batches than small ones at once.
        wide : bool
            The images are uint16: PNGs of 16 bits keep them, and bytes become ``byte * 257``.

        Returns
        -------
        bool
            Whether all targets cover their images.

        Raises
        ------
        ValueError
            Shapes disagree, or a rectangle is empty or outside of its picture.
        QueueClosed
            The crew was closed.
        """
        return self.begin_views(samples, [(windows, targets, mirrored, filter, size)], exact, nbytes, wide)

    def begin_views(
        self,
        const int64_t[::1] samples not None,
        list views not None,
        bint exact,
        size_t nbytes=0,
        bint wide=False,
    ):
        """Set several windows for each picture of the last `read`, which is decoded once; otherwise as `begin`.

        Parameters
        ----------
        views : list of (windows, targets, mirrored, filter, size)
            As in `begin`; 1 to `MOST_VIEWS`, with equal channels. A JPEG is decoded at the largest scale that one of
            its views needs.
        samples, exact, nbytes, wide
            As in `begin`.

        Returns
        -------
        bool
            Whether all targets of all views cover their images.

        Raises
        ------
        ValueError
            As `begin`; or the number of views or their channels are not allowed.
        QueueClosed
            The crew was closed.
        """
        self._check()
        cdef Py_ssize_t n = samples.shape[0]
        cdef int v, closed, channels = 0
        cdef bint covered = True
        self.job.count = 0
        if not 1 <= len(views) <= HW_MOST_VIEWS:
            raise ValueError(f"BatchDecoder: {len(views)} views; expected 1 to {HW_MOST_VIEWS}")
        self.job.views = <int> len(views)
        for windows, targets, mirrored, _, _ in views:
            if not len(windows) == len(targets) == len(mirrored) == n:
                raise ValueError(
                    f"BatchDecoder: {n} samples, {len(windows)} windows, {len(targets)} targets and {len(mirrored)} "
                    "pairs of mirrors; these must be equal"
                )
        self._choose(samples)
        for v in range(self.job.views):
            windows, targets, mirrored, filter, size = views[v]
            _, _, own = size
            if v and own != channels:
                raise ValueError(f"BatchDecoder: views of {channels} and {own} channels; expected the same")
            channels = own
            covered &= self._set_view(v, samples, windows, targets, mirrored.view(np.uint8), filter, exact, size, wide)
        self.chosen = np.array(samples)  # a private copy: pointers depend on it
        self.job.chosen = &self.chosen[0] if n else NULL
        self.job.count = <int> n
        self.job.bytes = nbytes
        self.wide = wide
        if n == 0:
            hw_crew_leave(self.crew.crew, &self.job)
            return True
        with nogil:
            closed = hw_crew_begin(self.crew.crew, &self.job, &self.worker)
        if closed:
            self._refuse_closed()
        return covered

    cdef int _choose(self, const int64_t[::1] samples) except -1:
        """Give each sample its targets; `self.job.views` is set."""
        cdef Py_ssize_t n = samples.shape[0], i, needed = n * self.job.views
        cdef hw_target *grown
        if needed > self.target_capacity:
            grown = <hw_target *> PyMem_RawRealloc(self.targets, needed * sizeof(hw_target))
            if grown is NULL:
                raise MemoryError(f"BatchDecoder: no memory for {needed} views")
            self.targets = grown
            self.target_capacity = needed
        for i in range(self.count):
            self.job.samples[i].slot = UNUSED
        for i in range(n):
            if not 0 <= samples[i] < self.count or self.job.samples[samples[i]].status != HW_OK:
                raise ValueError(f"BatchDecoder: sample {samples[i]} was not read with status OK")
            if self.job.samples[samples[i]].slot != UNUSED:
                raise ValueError(f"BatchDecoder: sample {samples[i]} comes twice")
            self.job.samples[samples[i]].slot = 0
            self.job.samples[samples[i]].targets = self.targets + i * self.job.views
        return 0

    cdef int _set_view(
        self,
        int view,
        const int64_t[::1] samples,
        const double[:, ::1] windows,
        const int32_t[:, ::1] targets,
        const uint8_t[:, :] mirrors,
        int filter,
        bint exact,
        tuple size,
        bint wide,
    ) except -1:
        """Set a view of all samples; whether its targets cover their images."""
        cdef Py_ssize_t n = samples.shape[0], i
        cdef int height, width, channels
        cdef bint covered = True
        cdef hw_sample *sample
        cdef hw_target *target
        height, width, channels = size
        if not (0 < height <= LONGEST_SIDE and 0 < width <= LONGEST_SIDE):
            raise ValueError(f"BatchDecoder: images of {height} x {width}; expected 1 to {LONGEST_SIDE}")
        if windows.shape[1] != 4 or targets.shape[1] != 4 or mirrors.shape[1] != 2:
            raise ValueError(
                f"BatchDecoder: rectangles of {windows.shape[1]} and {targets.shape[1]} numbers, not 4, or "
                f"{mirrors.shape[1]} mirrors, not 2"
            )
        if channels != 1 and channels != 3:
            raise ValueError(f"BatchDecoder: images of {channels} channels; expected 1 (gray) or 3 (RGB)")
        if not 0 <= filter < HW_FILTERS:
            raise ValueError(f"BatchDecoder: filter {filter}; expected 0..{HW_FILTERS - 1}")
        for i in range(n):
            sample = &self.job.samples[samples[i]]
            if not (  # written so that a NaN fails
                windows[i, 0] >= 0 and windows[i, 1] >= 0
                and windows[i, 2] <= sample.picture.width and windows[i, 3] <= sample.picture.height
                and windows[i, 2] > windows[i, 0] and windows[i, 3] > windows[i, 1]
                and targets[i, 0] >= 0 and targets[i, 1] >= 0
                and targets[i, 2] <= width and targets[i, 3] <= height
                and targets[i, 2] > targets[i, 0] and targets[i, 3] > targets[i, 1]
            ):
                raise ValueError(
                    f"BatchDecoder: window {[windows[i, k] for k in range(4)]} of a picture of "
                    f"{sample.picture.height} x {sample.picture.width} or target "
                    f"{[targets[i, k] for k in range(4)]} in {height} x {width} is empty or not inside "
                    "(x0, y0, x1, y1)"
                )
            target = &sample.targets[view]
            target[0] = hw_target(
                windows[i, 0], windows[i, 1], windows[i, 2], windows[i, 3],
                width - targets[i, 2] if mirrors[i, 0] else targets[i, 0],
                height - targets[i, 3] if mirrors[i, 1] else targets[i, 1],
                targets[i, 3] - targets[i, 1], targets[i, 2] - targets[i, 0], mirrors[i, 0], mirrors[i, 1],
                channels, filter, exact, simd.level, wide,
            )
            covered &= target.height == height and target.width == width
        memset(&self.job.images[view], 0, sizeof(hw_image))
        self.job.images[view].height = height
        self.job.images[view].width = width
        self.job.images[view].channels = channels
        return covered

    def ahead(self):
        """Decode one more picture between `begin` and `finish`, before the images exist.

        Returns
        -------
        bool
            False if nothing was decoded: there is no space for more, or other workers make their own batches.
        """
        self._check()
        cdef int refused
        if self.job.count == 0:
            return False
        with nogil:
            refused = hw_crew_ahead(self.crew.crew, &self.job, &self.worker)
        return not refused

    def finish(self, const int64_t[::1] slots not None, Images images not None):
        """Decode the windows given to `begin`, together with the rest of the crew.

        Parameters
        ----------
        slots : int64 (K,)
            Index of the image for each sample.
        images : Images

        Returns
        -------
        list of int
            Status of each sample; if it is not `OK`, see `message`, and the target's pixels are undefined. `REFUSED`:
            the file is a PNG or WebP that is not sound; another decoder may decode its `contents`.

        Raises
        ------
        ValueError
            Shapes disagree.
        QueueClosed
            The crew was closed before the batch was complete.

        The batch leaves the crew whether this raises or not.
        """
        return self.finish_views(slots, [images])

    def finish_views(self, const int64_t[::1] slots not None, list images not None):
        """Decode the windows given to `begin_views`; as `finish`, with `Images` for each view."""
        self._check()
        cdef Py_ssize_t n = self.job.count, i
        cdef int closed, v
        try:
            if slots.shape[0] != n:
                raise ValueError(f"BatchDecoder: {slots.shape[0]} slots for {n} samples")
            if n and len(images) != self.job.views:
                raise ValueError(f"BatchDecoder: images of {len(images)} views; expected {self.job.views}, as begun")
            if n:
                for v in range(self.job.views):
                    self._give(v, images[v], slots)
                for i in range(n):
                    self.job.samples[self.chosen[i]].slot = slots[i]
                with nogil:
                    closed = hw_crew_finish(self.crew.crew, &self.job, &self.worker)
                if closed:
                    self._refuse_closed()
        finally:
            self.leave()
        return [self.job.samples[self.chosen[i]].status for i in range(n)]

    cdef int _give(self, int view, Images images, const int64_t[::1] slots) except -1:
        """Set the images of a view."""
        cdef Py_ssize_t i
        cdef hw_image *wanted = &self.job.images[view]
        if (images.first.height, images.first.width, images.first.channels) != (
            wanted.height, wanted.width, wanted.channels
        ):
            raise ValueError(
                f"BatchDecoder: images of {images.first.height} x {images.first.width} x "
                f"{images.first.channels}; expected {wanted.height} x {wanted.width} x {wanted.channels}, as begun"
            )
        if images.wide != self.wide:
            raise ValueError(
                f"BatchDecoder: images of {16 if images.wide else 8} bits; expected {16 if self.wide else 8}, "
                "as begun"
            )
        for i in range(slots.shape[0]):
            if not 0 <= slots[i] < images.count:
                raise ValueError(f"BatchDecoder: slot {slots[i]} of {images.count}")
        wanted[0] = images.first
        self.job.image_bytes[view] = images.image_bytes
        return 0

    def leave(self):
        """Abandon a batch that was read and not finished, so that no worker waits for it."""
        self._check()
        self.job.count = 0
        hw_crew_leave(self.crew.crew, &self.job)
