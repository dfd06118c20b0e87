"""Memory-mapped tables of a LevelDB: finds the values of records without a copy and without the GIL."""

import os

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport qsort
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, mmap, munmap
from posix.stat cimport fstat, struct_stat
from posix.unistd cimport close
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree

from highway._core cimport simd
from highway._core.records.spans cimport Spans, new_spans


cdef extern from "crc32c.h" nogil:
    void hw_crc32c_begin()


cdef extern from "sorted_table.h" nogil:
    ctypedef struct hw_table:
        const uint8_t *data
        size_t size
        uint64_t low
        uint64_t high

    ctypedef struct hw_value:
        const uint8_t *data
        size_t size
        uint64_t sequence

    int hw_table_open(int simd, hw_table *table, const uint8_t *data, size_t size)
    int hw_table_find(const hw_table *table, uint64_t number, hw_value *value)


hw_crc32c_begin()


cdef int by_low(const void *left, const void *right) noexcept nogil:
    cdef uint64_t first = (<const hw_table *> left).low, second = (<const hw_table *> right).low
    return (first > second) - (first < second)


cdef class Tables:
    """All tables of a LevelDB that no process writes; mapped as long as this object or any value in them lives.

    Parameters
    ----------
    paths : sequence of bytes

    Raises
    ------
    OSError
        A table cannot be mapped.
    ValueError
        A table is damaged or compressed.
    """

    cdef hw_table *tables  # sorted by lowest number
    cdef uint64_t *highest  # of a table and all before it
    cdef Py_ssize_t count

    def __cinit__(self, paths):
        cdef Py_ssize_t i, count = len(paths)
        cdef int variant = simd.level, opened = 0
        self.tables = <hw_table *> PyMem_RawCalloc(max(count, 1), sizeof(hw_table))
        self.highest = <uint64_t *> PyMem_RawCalloc(max(count, 1), sizeof(uint64_t))
        if self.tables == NULL or self.highest == NULL:
            raise MemoryError
        for path in paths:
            map_file(path, &self.tables[self.count])
            self.count += 1
        for i in range(count):
            with nogil:
                opened = hw_table_open(variant, &self.tables[i], self.tables[i].data, self.tables[i].size)
            if opened:
                raise ValueError(f"its table {named(paths[i])} is damaged or compressed")
        qsort(self.tables, count, sizeof(hw_table), by_low)
        for i in range(count):
            self.highest[i] = max(self.tables[i].high, self.highest[i - 1] if i else 0)

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            munmap(<void *> self.tables[i].data, self.tables[i].size)
        PyMem_RawFree(self.tables)
        PyMem_RawFree(self.highest)

    def find(self, const int64_t[::1] numbers not None):
        """Return the values of records.

        Parameters
        ----------
        numbers : int64 (N,)
            0 or more.

        Returns
        -------
        Spans
            Missing if the record does not exist or was deleted, or if a table that may have it is damaged there: ask
            LevelDB.
        """
        cdef Py_ssize_t i, count = numbers.shape[0]
        cdef Spans spans = new_spans(count)
        spans.owners.append(self)
        with nogil:
            for i in range(count):
                if numbers[i] >= 0:
                    self.look(<uint64_t> numbers[i], &spans.data[i], &spans.sizes[i])
        return spans

    cdef void look(self, uint64_t number, const uint8_t **data, size_t *size) noexcept nogil:
        cdef Py_ssize_t low = 0, high = self.count, middle
        cdef hw_value value
        cdef uint64_t newest = 0
        # The tables from `low` on have higher numbers only.
        while low < high:
            middle = (low + high) // 2
            if self.tables[middle].low <= number:
                low = middle + 1
            else:
                high = middle
        while low > 0 and self.highest[low - 1] >= number:
            low -= 1
            if self.tables[low].high < number:
                continue
            if hw_table_find(&self.tables[low], number, &value):
                data[0] = NULL
                size[0] = 0
                return
            if value.data != NULL and (data[0] == NULL or value.sequence > newest):
                data[0] = value.data
                size[0] = value.size
                newest = value.sequence


cdef str named(path):
    return repr(os.path.basename(os.fsdecode(path)))


cdef failed(int number, bytes name, str what):
    why = os.strerror(number) if number else "it is empty"
    return OSError(number, f"its table {named(name)} cannot be {what}: {why}")


cdef int map_file(path, hw_table *table) except -1:
    """Map a file that is not empty; raise OSError or ValueError on failure."""
    cdef bytes name = path
    cdef struct_stat found
    cdef void *data = MAP_FAILED
    cdef int file = open(name, O_RDONLY | O_CLOEXEC), number = 0
    if file < 0:
        raise failed(errno, name, "opened")
    if fstat(file, &found):
        number = errno
    elif found.st_size > 0:
        data = mmap(NULL, <size_t> found.st_size, PROT_READ, MAP_SHARED, file, 0)
        number = errno if data == MAP_FAILED else 0
    close(file)
    if data == MAP_FAILED:
        raise failed(number, name, "mapped")
    table.data = <const uint8_t *> data
    table.size = <size_t> found.st_size
    return 0
