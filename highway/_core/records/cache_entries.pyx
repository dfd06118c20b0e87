"""Reads entries of the cache on the local disk, many with one call, without the GIL."""

from cpython.bytes cimport PyBytes_AsString
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int32_t, int64_t, uint8_t

import numpy as np

from highway._core cimport simd


cdef extern from "buffer.h" nogil:
    ctypedef struct hw_buffer:
        uint8_t *bytes
        size_t capacity

    void hw_buffer_free(hw_buffer *buffer)

cdef extern from "crc32c.h" nogil:
    void hw_crc32c_begin()

cdef extern from "entry_files.h" nogil:
    enum: HW_ENTRY_DAMAGED, HW_ENTRY_NO_MEMORY

    int hw_cache_entry_read(
        const char *path, const uint8_t *key, size_t key_size, uint8_t *contents, size_t size, hw_buffer *head, int simd
    )


hw_crc32c_begin()

DAMAGED = HW_ENTRY_DAMAGED


cdef struct Entry:
    const char *path
    const uint8_t *key
    size_t key_size
    uint8_t *contents
    size_t size


def read(list paths not None, list keys not None, const int64_t[:, ::1] places not None, uint8_t[::1] into not None):
    """Read the contents of entries, compare their checksums, and note their use, at most once a minute.

    Parameters
    ----------
    paths, keys : list of bytes
        N files, and what each is expected to hold.
    places : int64 (N, 2)
        First and last byte, exclusive, of the contents of each in `into`; they are as long as the contents.
    into : uint8 (M,), writable

    Returns
    -------
    int32 (N,)
        0; `DAMAGED` if the file is not an entry of this key and length with the right checksum; or the `errno` of what
        failed. Only where it is 0, `into` has the contents.

    Raises
    ------
    ValueError
        Lengths differ, or a place is not in `into`.
    MemoryError
    """
    cdef Py_ssize_t i, n = len(paths)
    cdef int variant = simd.level
    cdef int status = 0
    cdef Entry *entries
    cdef hw_buffer head = hw_buffer(NULL, 0)
    if len(keys) != n or places.shape[0] != n or places.shape[1] != 2:
        raise ValueError(
            f"cache_entries.read: {n} paths, {len(keys)} keys and places of shape {places.shape[0]} x "
            f"{places.shape[1]}; expected as many keys, and N x 2"
        )
    for i in range(n):
        if not 0 <= places[i, 0] <= places[i, 1] <= into.shape[0]:
            raise ValueError(
                f"cache_entries.read: place {i} is {places[i, 0]} to {places[i, 1]}; expected one within "
                f"{into.shape[0]} bytes"
            )
    found = np.zeros(n, np.int32)
    cdef int32_t[::1] statuses = found
    entries = <Entry *> PyMem_RawMalloc(max(n, 1) * sizeof(Entry))
    if entries is NULL:
        raise MemoryError(f"cache_entries.read: no memory for {n} entries")
    try:
        for i in range(n):
            key = keys[i]
            entries[i].path = PyBytes_AsString(paths[i])
            entries[i].key = <const uint8_t *> PyBytes_AsString(key)
            entries[i].key_size = len(key)
            entries[i].size = <size_t> (places[i, 1] - places[i, 0])
            # A place of no bytes may be the end of `into`.
            entries[i].contents = &into[places[i, 0]] if entries[i].size else NULL
        with nogil:
            for i in range(n):
                status = hw_cache_entry_read(
                    entries[i].path, entries[i].key, entries[i].key_size, entries[i].contents, entries[i].size, &head,
                    variant,
                )
                if status == HW_ENTRY_NO_MEMORY:
                    break
                statuses[i] = status
    finally:
        PyMem_RawFree(entries)
        hw_buffer_free(&head)
    if status == HW_ENTRY_NO_MEMORY:
        raise MemoryError("cache_entries.read: no memory for a key")
    return found
