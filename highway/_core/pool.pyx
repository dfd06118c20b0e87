"""A pool of aligned buffers: memory returns to the pool when the last view of an array dies, never before.

The GIL guards the pool: Python calls and destructors take and return memory, and both hold it.
"""

import math
import threading
from contextlib import contextmanager

import numpy as np

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uintptr_t
from libc.string cimport memmove

from highway.errors import ArgumentError, ContractError

cdef extern from *:
    """
    #include <sys/mman.h>

    /* Reports mapped memory to tracemalloc, so that it sees leaks. The domain id is arbitrary. */
    #define HIGHWAY_TRACE_DOMAIN 0x48577931u

    static void *highway_map(size_t size) {
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
        /* As in NumPy: a batch has thousands of small pages, more than the TLB holds. */
        if (size >= ((size_t)4 << 20)) madvise(memory, size, MADV_HUGEPAGE);
#endif
        PyTraceMalloc_Track(HIGHWAY_TRACE_DOMAIN, (uintptr_t)memory, size);
        return memory;
    }

    static void highway_unmap(void *memory, size_t size) {
        PyTraceMalloc_Untrack(HIGHWAY_TRACE_DOMAIN, (uintptr_t)memory);
        munmap(memory, size);
    }
    """
    void *highway_map(size_t size)
    void highway_unmap(void *memory, size_t size)

cdef enum:
    ALIGNMENT = 64  # a cache line, and the widest vector that a kernel loads
    SHELF = 64
    # Blocks of this size or more are mapped: freed blocks return to the system at once, where malloc would
    # keep them as gaps between live blocks.
    MAPPED = 1 << 18
    # A block that stays unused while this many arrays are allocated is freed.
    PATIENCE = 256


cdef struct Block:
    void *memory
    size_t capacity
    long long returned  # arrays allocated by then
    PyObject *owner  # of the memory, where an allocator made it


cdef bint allocate(size_t capacity, object allocator, Block *block) except -1:
    """Fill `block` with new memory; return False if there is none."""
    cdef uint8_t[::1] memory
    block.capacity = capacity
    block.owner = NULL
    if allocator is not None and capacity >= MAPPED:
        owner = allocator(capacity)
        if owner is None:
            # Cython takes None for memory without an owner.
            raise TypeError(f"{allocator!r} returned None; expected a writable buffer of {capacity} bytes")
        memory = owner
        if <size_t> memory.shape[0] < capacity or <uintptr_t> &memory[0] % ALIGNMENT:
            raise ContractError(
                f"{allocator!r} returned {memory.shape[0]} bytes at {<uintptr_t> &memory[0]:#x}; expected {capacity} "
                f"or more, at a multiple of {ALIGNMENT}"
            )
        block.memory = &memory[0]
        Py_INCREF(owner)
        block.owner = <PyObject *> owner
        return True
    block.memory = highway_map(capacity) if capacity >= MAPPED else PyMem_RawMalloc(capacity + ALIGNMENT)
    return block.memory != NULL


cdef void release(Block block) noexcept:
    if block.owner != NULL:
        Py_XDECREF(block.owner)
    elif block.capacity >= MAPPED:
        highway_unmap(block.memory, block.capacity)
    else:
        PyMem_RawFree(block.memory)


cdef size_t size_class(size_t nbytes) noexcept nogil:
    """Round up to one of eight steps per power of two: batches of one size share a block size."""
    cdef size_t step = ALIGNMENT
    while step * 16 < nbytes:
        step *= 2
    return (nbytes + step - 1) // step * step


@cython.final
@cython.no_gc
cdef class PooledBuffer:
    """Memory of one array: a writable buffer that goes back to its pool when it dies."""

    cdef BufferPool pool
    cdef Block block
    cdef void *data
    cdef Py_ssize_t nbytes

    def __dealloc__(self):
        if self.block.memory != NULL:
            self.pool.give(self.block)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.nbytes, False, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass

    def __len__(self):
        return self.nbytes


@cython.final
@cython.no_gc
cdef class BufferPool:
    """Allocates uninitialized arrays, and reuses their memory after their last view dies.

    Parameters
    ----------
    max_free_bytes : int
        Maximum memory that waits for reuse; the pool frees the rest at once.
    max_free_per_size : int
        Maximum number of blocks of one size that wait for reuse.
    allocator : callable, optional
        Called with a number of bytes, returns a writable buffer of uint8, such as page-locked memory, of that many
        bytes or more at a multiple of 64; the pool keeps it until it frees the block. It makes the blocks of 256 KiB or
        more; by default that of `allocating`, if any.

    Notes
    -----
    The pool also frees blocks that stay unused while many arrays are allocated: memory of a past peak is
    released.

    A closed pool still allocates arrays, but frees their memory as soon as the last view dies. So a worker
    that outlives its pipeline, and a batch that the user holds, need no special case.
    """

    cdef Block[SHELF] shelf
    cdef int shelved
    cdef size_t free_bytes
    cdef size_t used_bytes
    cdef size_t max_free_bytes
    cdef int max_free_per_size
    cdef long long handed_out
    cdef long long reused
    cdef bint closed
    cdef object allocator

    def __cinit__(self, *, max_free_bytes=64 << 20, max_free_per_size=4, allocator=None):
        if max_free_bytes < 0 or max_free_per_size < 0:
            raise ArgumentError(
                "BufferPool: max_free_bytes and max_free_per_size must be 0 or more, "
                f"not {max_free_bytes} and {max_free_per_size}"
            )
        self.max_free_bytes = max_free_bytes
        self.max_free_per_size = max_free_per_size
        self.allocator = getattr(current, "allocator", None) if allocator is None else allocator

    def __dealloc__(self):
        self.clear_shelf()

    cdef void clear_shelf(self) noexcept:
        while self.shelved:
            self.free_first()

    cdef void free_first(self) noexcept:
        """Free the block that was returned first; freeing may run Python code, which may use the pool."""
        cdef Block block = self.shelf[0]
        self.shelved -= 1
        memmove(&self.shelf[0], &self.shelf[1], self.shelved * sizeof(Block))
        self.free_bytes -= block.capacity
        release(block)

    cdef bint take(self, size_t capacity, Block *block) except -1:
        """Fill `block` with memory of `capacity` usable bytes; reuse the last returned block, if any."""
        cdef int i
        for i in range(self.shelved - 1, -1, -1):
            if self.shelf[i].capacity == capacity:
                block[0] = self.shelf[i]
                self.shelved -= 1
                # In order of their return, for the next search.
                memmove(&self.shelf[i], &self.shelf[i + 1], (self.shelved - i) * sizeof(Block))
                self.free_bytes -= capacity
                self.used_bytes += capacity
                self.reused += 1
                return True
        if not allocate(capacity, self.allocator, block):
            return False
        self.used_bytes += capacity
        return True

    cdef bint keeps(self, size_t capacity) noexcept:
        """Whether a block of `capacity` bytes waits for reuse."""
        cdef int i
        for i in range(self.shelved):
            if self.shelf[i].capacity == capacity:
                return True
        return False

    cdef void drop_idle(self) noexcept:
        """Free blocks that waited too long; the block returned last is reused first, so these are spare."""
        while self.shelved and self.handed_out - self.shelf[0].returned > PATIENCE:
            self.free_first()

    cdef void give(self, Block block) noexcept:
        cdef int i, same = 0
        self.drop_idle()
        block.returned = self.handed_out
        self.used_bytes -= block.capacity
        for i in range(self.shelved):
            same += self.shelf[i].capacity == block.capacity
        if (
            self.closed
            or self.shelved == SHELF
            or same >= self.max_free_per_size
            or self.free_bytes + block.capacity > self.max_free_bytes
        ):
            release(block)
            return
        self.shelf[self.shelved] = block
        self.shelved += 1
        self.free_bytes += block.capacity

    def empty(self, shape, dtype="uint8"):
        """Return an uninitialized, C-ordered, writable array whose memory is aligned to 64 bytes.

        Parameters
        ----------
        shape : int or tuple of int
        dtype : numpy dtype or its name
            Anything but objects.

        Returns
        -------
        ndarray

        Raises
        ------
        ArgumentError
            Negative shape, or a dtype that holds Python objects.
        MemoryError
            There is not enough memory.
        """
        cdef PooledBuffer buffer
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise ArgumentError(f"empty: dtype must not hold Python objects, but is {dtype}; use numpy.empty")
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        for extent in shape:
            if extent < 0:
                raise ArgumentError(f"empty: shape must not be negative, but is {shape}")
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes == 0:
            return np.empty(shape, dtype)
        if nbytes > (<Py_ssize_t> 1 << 62):
            raise MemoryError(f"empty: an array of shape {shape} and dtype {dtype} needs {nbytes} bytes")
        buffer = PooledBuffer()
        buffer.pool = self
        buffer.nbytes = nbytes
        if not self.take(size_class(nbytes), &buffer.block):
            raise MemoryError(f"empty: an array of shape {shape} and dtype {dtype} needs {nbytes} bytes")
        buffer.data = <void *> ((<uintptr_t> buffer.block.memory + ALIGNMENT - 1) & ~<uintptr_t> (ALIGNMENT - 1))
        self.handed_out += 1
        return np.ndarray(shape, dtype, buffer)

    def use(self):
        """Make this the pool of the calling thread: `highway.batch.empty` takes memory from it there."""
        current.pool = self

    def close(self):
        """Free all waiting memory; from now on memory is freed when its last view dies. Idempotent."""
        self.closed = True
        self.clear_shelf()

    def stats(self):
        """Return counts of this pool.

        Returns
        -------
        dict
            `used_bytes` and `free_bytes` (memory in arrays, and waiting for reuse), `handed_out` (arrays so
            far), `reused` (how many of them needed no new memory).
        """
        return {
            "used_bytes": self.used_bytes,
            "free_bytes": self.free_bytes,
            "handed_out": self.handed_out,
            "reused": self.reused,
        }


current = threading.local()


@contextmanager
def allocating(allocator):
    """Give the allocator to every pool that the calling thread makes meanwhile; see `BufferPool`."""
    before = getattr(current, "allocator", None)
    current.allocator = allocator
    try:
        yield
    finally:
        current.allocator = before


def allocates():
    """Whether an allocator makes the memory of the pool of the calling thread."""
    pool = getattr(current, "pool", None)
    return pool is not None and (<BufferPool?> pool).allocator is not None


def waiting(size_t nbytes):
    """Whether memory for an array of so many bytes waits for reuse in the pool of the calling thread.

    Also True if the thread has no pool, or the array is too small for one.
    """
    pool = getattr(current, "pool", None)
    return pool is None or nbytes < MAPPED or (<BufferPool?> pool).keeps(size_class(nbytes))


def empty(shape, dtype="uint8"):
    """Return an uninitialized array from the pool of the calling thread, or from numpy without one."""
    pool = getattr(current, "pool", None)
    if pool is None:
        return np.empty(shape, dtype)
    return (<BufferPool?> pool).empty(shape, dtype)
