"""Finds the members of a tar file, and groups members to samples, without the GIL."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.errno cimport errno
from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

import numpy as np

from highway._core cimport simd


cdef extern from "crc32c.h" nogil:
    void hw_crc32c_begin()
    uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size)


cdef extern from "tar_headers.h" nogil:
    enum:
        HW_TAR_MEMBER, HW_TAR_END, HW_TAR_REFUSED, HW_TAR_CUT_HEADER, HW_TAR_CUT_MEMBER, HW_TAR_CUT_AFTER
        HW_TAR_CHECKSUM, HW_TAR_NUMBER, HW_TAR_EXTENDED, HW_TAR_TRAILING, HW_TAR_READ, HW_TAR_NO_MEMORY

    ctypedef int64_t (*hw_tar_read)(void *source, int64_t offset, uint8_t *into, size_t size)

    ctypedef struct hw_tar:
        int64_t at

    ctypedef struct hw_tar_member:
        int64_t header, start, size
        const uint8_t *name
        size_t name_size
        char type
        uint8_t block[512]

    void hw_tar_begin(hw_tar *tar, hw_tar_read read, void *source, int64_t size, int64_t at)
    void hw_tar_free(hw_tar *tar)
    int hw_tar_next(hw_tar *tar, hw_tar_member *member)
    int64_t hw_tar_read_file(void *source, int64_t offset, uint8_t *into, size_t size)


hw_crc32c_begin()

cdef enum:
    BLOCK = 4096  # members between two checks for Ctrl-C
    HEADER_BYTES = 512
    MOST_ENDINGS = 256

HEADER = HEADER_BYTES

MEMBER = HW_TAR_MEMBER
END = HW_TAR_END
REFUSED = HW_TAR_REFUSED
CUT_HEADER = HW_TAR_CUT_HEADER
CUT_MEMBER = HW_TAR_CUT_MEMBER
CUT_AFTER = HW_TAR_CUT_AFTER
CHECKSUM = HW_TAR_CHECKSUM
NUMBER = HW_TAR_NUMBER
EXTENDED = HW_TAR_EXTENDED
TRAILING = HW_TAR_TRAILING
READ = HW_TAR_READ
NO_MEMORY = HW_TAR_NO_MEMORY


cdef int64_t read_by_python(void *source, int64_t offset, uint8_t *into, size_t size) noexcept with gil:
    """`hw_tar_read` by a _Reading; keeps the exception of its function."""
    cdef _Reading reading = <_Reading> source
    cdef const uint8_t[::1] found
    try:
        found = reading.read(offset, size)
        if <size_t> found.shape[0] > size:
            raise ValueError(f"members: {found.shape[0]} bytes were read; expected {size} or fewer")
        if found.shape[0]:
            memcpy(into, &found[0], found.shape[0])
        return found.shape[0]
    except BaseException as error:
        reading.error = error
        return -1


cdef class _Reading:
    cdef object read
    cdef object error

    def __init__(self, read):
        self.read = read


@cython.final
cdef class Members:
    """The members of a tar file that are regular files, in their order.

    Parameters
    ----------
    source : int or callable
        Descriptor of a file; or ``read(offset, size)``, which returns up to `size` bytes, fewer only at the end.
    size : int
        Of the tar file, in bytes.
    at : int
        Offset of a header to begin with.
    most : int
        Stop after this number of members; the status is then `MEMBER`.

    Attributes
    ----------
    status : int
        `END`, or what is wrong.
    header : int
        Offset of what is wrong.
    name : bytes
        Name of the member that is wrong, where one is known.
    kind : str
        Type of a refused member: its letter in the header.
    number : int
        errno, if the status is `READ`.
    """

    cdef int64_t *starts
    cdef int64_t *sizes
    cdef int64_t *ends
    cdef uint32_t *checks
    cdef uint8_t *text
    cdef Py_ssize_t count, room, text_size, text_room
    cdef readonly int status
    cdef readonly int number
    cdef readonly int64_t header
    cdef readonly bytes name
    cdef readonly str kind

    def __init__(self, source not None, int64_t size, int64_t at=0, int64_t most=-1):
        cdef hw_tar tar
        cdef hw_tar_member member
        cdef int file = -1
        cdef _Reading reading = None
        if self.starts is not NULL:
            raise ValueError("Members: it was made already")
        if isinstance(source, int):
            file = source
            hw_tar_begin(&tar, hw_tar_read_file, &file, size, at)
        else:
            reading = _Reading(source)
            hw_tar_begin(&tar, read_by_python, <void *> reading, size, at)
        try:
            self.status = HW_TAR_MEMBER
            while self.status == HW_TAR_MEMBER and self.count != most:
                with nogil:
                    self.status = self._scan(&tar, &member, most)
                # Before a handler of signals, which may change it.
                self.number = errno if self.status == HW_TAR_READ else 0
                PyErr_CheckSignals()
            self.header = member.header if self.status != HW_TAR_MEMBER else tar.at
            self.name = b""
            self.kind = ""
            if self.status == HW_TAR_REFUSED or self.status == HW_TAR_CUT_MEMBER:
                self.name = member.name[:member.name_size]
                self.kind = chr(<uint8_t> member.type)
        finally:
            hw_tar_free(&tar)
        if reading is not None and reading.error is not None:
            raise reading.error
        if self.status == HW_TAR_NO_MEMORY:
            raise MemoryError(f"Members: no memory for {self.count} members of a tar file")

    def __dealloc__(self):
        PyMem_RawFree(self.starts)
        PyMem_RawFree(self.sizes)
        PyMem_RawFree(self.ends)
        PyMem_RawFree(self.checks)
        PyMem_RawFree(self.text)

    cdef int _scan(self, hw_tar *tar, hw_tar_member *member, int64_t most) noexcept nogil:
        """Take up to BLOCK members; returns the status of the last call."""
        cdef int _, status = HW_TAR_MEMBER
        for _ in range(BLOCK):
            if self.count == most:
                return HW_TAR_MEMBER
            status = hw_tar_next(tar, member)
            if status != HW_TAR_MEMBER:
                return status
            if self._make_room(<Py_ssize_t> member.name_size):
                return HW_TAR_NO_MEMORY
            self.starts[self.count] = member.start
            self.sizes[self.count] = member.size
            memcpy(self.text + self.text_size, member.name, member.name_size)
            self.text_size += <Py_ssize_t> member.name_size
            self.ends[self.count] = self.text_size
            self.checks[self.count] = hw_crc32c(simd.level, 0, member.block, HEADER_BYTES)
            self.count += 1
        return status

    cdef int _make_room(self, Py_ssize_t name_size) noexcept nogil:
        cdef Py_ssize_t room
        cdef void *grown
        if self.count == self.room:
            room = 2 * self.room + 64
            grown = PyMem_RawRealloc(self.starts, room * sizeof(int64_t))
            if grown is NULL:
                return -1
            self.starts = <int64_t *> grown
            grown = PyMem_RawRealloc(self.sizes, room * sizeof(int64_t))
            if grown is NULL:
                return -1
            self.sizes = <int64_t *> grown
            grown = PyMem_RawRealloc(self.ends, room * sizeof(int64_t))
            if grown is NULL:
                return -1
            self.ends = <int64_t *> grown
            grown = PyMem_RawRealloc(self.checks, room * sizeof(uint32_t))
            if grown is NULL:
                return -1
            self.checks = <uint32_t *> grown
            self.room = room
        if self.text_size + name_size > self.text_room:
            room = 2 * self.text_room + name_size + 4096
            grown = PyMem_RawRealloc(self.text, room)
            if grown is NULL:
                return -1
            self.text = <uint8_t *> grown
            self.text_room = room
        return 0

    def __len__(self):
        return self.count

    def arrays(self):
        """Return the members found.

        Returns
        -------
        starts, sizes : int64 (M,)
            First byte of the contents in the tar file, and their number of bytes.
        ends : int64 (M,)
            End of each name in `text`; each begins at the end of the one before.
        checks : uint32 (M,)
            CRC-32C of the `HEADER` bytes before the contents: the header.
        text : uint8 (K,)
        """
        cdef Py_ssize_t n = self.count
        arrays = [np.empty(n, np.int64) for _ in range(3)]
        arrays += [np.empty(n, np.uint32), np.empty(self.text_size, np.uint8)]
        cdef int64_t[::1] starts = arrays[0], sizes = arrays[1], ends = arrays[2]
        cdef uint32_t[::1] checks = arrays[3]
        cdef uint8_t[::1] text = arrays[4]
        if n:
            memcpy(&starts[0], self.starts, n * sizeof(int64_t))
            memcpy(&sizes[0], self.sizes, n * sizeof(int64_t))
            memcpy(&ends[0], self.ends, n * sizeof(int64_t))
            memcpy(&checks[0], self.checks, n * sizeof(uint32_t))
        if self.text_size:
            memcpy(&text[0], self.text, self.text_size)
        return tuple(arrays)


cdef inline uint8_t lower(uint8_t letter) noexcept nogil:
    return letter + 32 if c'A' <= letter <= c'Z' else letter


cdef bint is_ending(const uint8_t *ending, int64_t size, const uint8_t *wanted, int64_t wanted_size) noexcept nogil:
    cdef int64_t i
    if size != wanted_size:
        return False
    for i in range(size):
        if lower(ending[i]) != wanted[i]:
            return False
    return True


cdef bint is_metadata(const uint8_t *name, int64_t size) noexcept nogil:
    """Whether the first part of a name is ``__...__``, which WebDataset keeps for itself."""
    cdef const uint8_t *slash = <const uint8_t *> memchr(name, c'/', size)
    cdef int64_t part = slash - name if slash is not NULL else size
    return part >= 4 and name[0] == c'_' and name[1] == c'_' and name[part - 1] == c'_' and name[part - 2] == c'_'


def group(
    const uint8_t[::1] text not None,
    const int64_t[::1] ends not None,
    const int64_t[::1] firsts not None,
    list endings not None,
):
    """Group members to samples, as WebDataset does: adjacent ones with the same name up to the first dot of its file.

    Parameters
    ----------
    text, ends
        See `Members.arrays`; of several tar files.
    firsts : int64 (T,)
        Number of the first member of each tar file, where a sample ends in any case; ascending.
    endings : list of bytes
        Endings of interest, without the first dot, in lower case; at most 256.

    Returns
    -------
    samples : int64 (M,)
        Number of the sample of each member; -1 for members without an ending, hidden ones and metadata.
    codes : int16 (M,)
        Index of its ending in `endings`, in any case; -1 for others.
    keys : int64 (M, 2)
        First byte and end of the key of each member in `text`; without ``./`` at its front.
    hashes : uint64 (M,)
        Hash of the key.
    """
    cdef Py_ssize_t m = ends.shape[0], i, t = 0, before = -1
    cdef int64_t begin = 0, end, slash, dot, first, sample = -1, k
    cdef uint64_t hashed
    cdef int e, n = <int> len(endings)
    cdef const uint8_t *wanted[MOST_ENDINGS]
    cdef int64_t wanted_sizes[MOST_ENDINGS]
    cdef const uint8_t *base = &text[0] if text.shape[0] else NULL
    cdef bint same
    if n > MOST_ENDINGS:
        raise ValueError(f"group: {n} endings; expected at most {MOST_ENDINGS}")
    if m and (ends[m - 1] != text.shape[0]):
        raise ValueError(f"group: names end at {ends[m - 1]} of {text.shape[0]} bytes")
    for e in range(n):
        wanted[e] = <const uint8_t *> (<bytes> endings[e])
        wanted_sizes[e] = len(endings[e])
    found = (np.full(m, -1, np.int64), np.full(m, -1, np.int16), np.zeros((m, 2), np.int64), np.zeros(m, np.uint64))
    cdef int64_t[::1] samples = found[0]
    cdef int16_t[::1] codes = found[1]
    cdef int64_t[:, ::1] keys = found[2]
    cdef uint64_t[::1] hashes = found[3]
    with nogil:
        for i in range(m):
            while t < firsts.shape[0] and firsts[t] <= i:
                t += 1
                before = -1
            first, end = begin, ends[i]
            if end < begin or end > text.shape[0]:
                with gil:
                    raise ValueError(f"group: name {i} ends at {end}, before it begins at {begin}")
            begin = end
            while end - first > 2 and base[first] == c'.' and base[first + 1] == c'/':
                first += 2
            slash = first
            for k in range(end - 1, first - 1, -1):
                if base[k] == c'/':
                    slash = k + 1
                    break
            dot = slash
            while dot < end and base[dot] != c'.':
                dot += 1
            if dot == slash or dot == end or is_metadata(base + first, end - first):
                continue
            keys[i, 0], keys[i, 1] = first, dot
            for e in range(n):
                if is_ending(base + dot + 1, end - dot - 1, wanted[e], wanted_sizes[e]):
                    codes[i] = e
                    break
            same = (
                before >= 0
                and keys[before, 1] - keys[before, 0] == dot - first
                and memcmp(base + keys[before, 0], base + first, dot - first) == 0
            )
            if same:
                hashes[i] = hashes[before]
            else:
                sample += 1
                # FNV-1a
                hashed = 14695981039346656037ULL
                for k in range(first, dot):
                    hashed = (hashed ^ base[k]) * 1099511628211ULL
                hashes[i] = hashed
            samples[i] = sample
            before = i
    return found
