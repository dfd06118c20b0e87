"""BufferPool: memory comes back when the last view dies, never before, and is bounded."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from concurrency import Task
from decoding import resident
from hypothesis import given, settings
from hypothesis import strategies as st

from highway import batch
from highway._core.pool import BufferPool, allocates, allocating, waiting
from highway.errors import ArgumentError, ContractError

SHAPE = (16, 24, 32, 3)


def free(pool):
    return pool.stats()["free_bytes"]


def used(pool):
    return pool.stats()["used_bytes"]


@given(
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    dtype=st.sampled_from(["uint8", "float32", "float16", "int64", "bool", ">i4"]),
)
def test_arrays_are_what_numpy_would_make_and_aligned(shape, dtype):
    array = BufferPool().empty(shape, dtype)
    like = np.empty(shape, dtype)
    assert (array.shape, array.dtype, array.strides) == (like.shape, like.dtype, like.strides)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.size == 0 or array.ctypes.data % 64 == 0
    array[...] = 1
    assert (array == 1).all()


def test_arrays_do_not_overlap():
    pool = BufferPool()
    arrays = [pool.empty(n) for n in (1, 63, 64, 65, 1000, 1025, 4097, 100_001)]
    for number, array in enumerate(arrays):
        array[:] = number
    assert all((array == number).all() for number, array in enumerate(arrays))


def test_memory_is_used_again_once_the_last_view_has_died():
    pool = BufferPool()
    array = pool.empty(SHAPE)
    address = array.ctypes.data
    view = array[3:7, ::2, 1:]
    turned = view[::-1].T
    del array, view
    assert free(pool) == 0
    assert pool.empty(SHAPE).ctypes.data != address
    del turned
    assert free(pool) >= 2 * 16 * 24 * 32 * 3
    again = [pool.empty(SHAPE) for _ in range(2)]
    assert address in [array.ctypes.data for array in again]
    assert pool.stats()["reused"] == 2


@pytest.mark.parametrize("export", [memoryview, lambda array: np.frombuffer(array, "uint8"), np.from_dlpack])
def test_every_kind_of_view_keeps_the_memory(export):
    pool = BufferPool()
    array = pool.empty(SHAPE)
    array[...] = 7
    kept = export(array)
    del array
    gc.collect()
    assert free(pool) == 0
    other = pool.empty(SHAPE)
    other[...] = 9
    assert (np.asarray(kept) == 7).all()


def test_memory_outlives_the_pool():
    pool = BufferPool()
    array = pool.empty(SHAPE)
    array[...] = 5
    del pool
    gc.collect()
    assert (array == 5).all()


def test_closed_pool_keeps_nothing_and_still_hands_out():
    pool = BufferPool()
    held = pool.empty(SHAPE)
    held[...] = 3
    pool.empty(SHAPE)
    assert free(pool) > 0
    pool.close()
    pool.close()
    assert free(pool) == 0
    later = pool.empty(SHAPE)
    later[...] = 4
    assert (held == 3).all()
    del held, later
    assert (free(pool), used(pool)) == (0, 0)


def test_what_waits_for_reuse_is_bounded():
    pool = BufferPool(max_free_bytes=1 << 20, max_free_per_size=2)
    size = pool.empty(100_000).nbytes
    arrays = [pool.empty(100_000) for _ in range(5)]
    del arrays
    assert 2 * size <= free(pool) < 3 * size
    big = pool.empty(1 << 20)
    del big
    assert free(pool) < 3 * size
    many = [pool.empty(64 * n) for n in range(1, 200)]
    del many
    assert free(pool) <= 1 << 20


def test_tracemalloc_sees_what_is_held_and_given_back():
    pool = BufferPool()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        arrays = [pool.empty(1 << 20) for _ in range(8)]
        assert tracemalloc.get_traced_memory()[0] - before >= 8 << 20
        del arrays
        assert tracemalloc.get_traced_memory()[0] - before <= (4 << 20) + 10_000
        pool.close()
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()


def test_dropped_pool_frees_its_memory():
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        BufferPool().empty(1 << 20)
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()


def test_nearly_equal_sizes_share_memory():
    pool = BufferPool()
    pool.empty(1_000_000)
    assert pool.empty(999_000).nbytes == 999_000
    assert pool.stats()["reused"] == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300_000)), max_size=60))
def test_counts_add_up(steps):
    pool = BufferPool(max_free_bytes=1 << 20)
    arrays = []
    for take, number in steps:
        if take or not arrays:
            array = pool.empty(number)
            array[:] = len(arrays) % 256
            arrays.append(array)
        else:
            arrays.pop(number % len(arrays))
            del array
            array = None
        stats = pool.stats()
        assert stats["used_bytes"] >= sum(each.nbytes for each in arrays)
        assert stats["free_bytes"] <= 1 << 20
        assert stats["handed_out"] >= stats["reused"]
    arrays.clear()
    array = None
    assert pool.stats()["used_bytes"] == 0


def test_threads_share_a_pool():
    pool = BufferPool()

    def work(value):
        for size in range(1, 400):
            array = pool.empty(size * 100)
            array[:] = value
            other = pool.empty(size)
            other[:] = 0
            assert (array == value).all()

    tasks = [Task(work, value) for value in range(1, 9)]
    for task in tasks:
        task.result()
    assert used(pool) == 0


def test_wrong_arguments():
    pool = BufferPool()
    with pytest.raises(ArgumentError, match="Python objects"):
        pool.empty(3, object)
    with pytest.raises(ArgumentError, match="negative"):
        pool.empty((2, -1))
    with pytest.raises(TypeError):
        pool.empty(2.5)
    for shape in ((1 << 40, 1 << 40), (1 << 61,), (1 << 55,)):
        with pytest.raises(MemoryError, match="bytes"):
            pool.empty(shape)
    with pytest.raises(ArgumentError, match="max_free_bytes"):
        BufferPool(max_free_bytes=-1)
    assert used(pool) == 0


def test_each_thread_has_the_pool_that_it_uses():
    pool = BufferPool()

    def work():
        assert batch.empty((2, 3)).base is None
        pool.use()
        array = batch.empty((2, 3), "float32")
        return array, threading.get_ident()

    array, thread = Task(work).result()
    assert thread != threading.get_ident()
    assert (array.shape, array.dtype) == ((2, 3), np.float32)
    assert pool.stats()["handed_out"] == 1
    here = batch.empty((2, 3))
    assert (here.dtype, here.shape) == (np.uint8, (2, 3))
    assert pool.stats()["handed_out"] == 1


@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="/proc, which tells the resident memory, is missing"
)
def test_memory_of_batches_goes_back_to_the_system():
    """Also when something small was allocated in between, and stays."""
    pool = BufferPool()
    before = resident()
    held, small = [], []
    for _ in range(50):
        array = pool.empty((1 << 21,))
        array[:] = 1
        held.append(array)
        small.append(bytearray(5000))
    assert resident() - before > 90 << 20
    del array, held[::2]
    assert resident() - before < 70 << 20
    held.clear()
    pool.close()
    assert resident() - before < 10 << 20
    assert len(small) == 50


def test_a_peak_is_forgotten():
    """What waits while many arrays come and go is freed; what they use stays."""
    pool = BufferPool()
    peak = [pool.empty((1 << 20,)) for _ in range(3)]
    del peak
    assert free(pool) >= 3 << 20
    for _ in range(600):
        pool.empty((1 << 20,))
    assert 1 << 20 <= free(pool) < 2 << 20
    assert pool.stats()["reused"] == 600


def test_memory_that_waits_for_reuse_is_told():
    def look():
        own = BufferPool()
        own.use()
        size = 1 << 20
        before = waiting(size)
        array = own.empty(size)
        held = waiting(size)
        del array
        return before, held, waiting(size), waiting(2 * size), waiting(100)

    # In threads of their own: this one may have a pool.
    assert Task(look).result() == (False, False, True, False, True)
    assert Task(waiting, 1 << 20).result()


class Allocator:
    """Notes what it was asked for, and which of its blocks are in use."""

    def __init__(self, shift=0):
        self.asked = []
        self.blocks = weakref.WeakValueDictionary()
        self.shift = shift

    def __call__(self, nbytes):
        self.asked.append(nbytes)
        memory = np.empty(nbytes + 128, np.uint8)
        start = -memory.ctypes.data % 64 + self.shift
        block = memory[start : start + nbytes]
        self.blocks[len(self.asked)] = block
        return block

    def addresses(self):
        return {block.ctypes.data for block in self.blocks.values()}


def test_a_thread_knows_whether_its_pool_has_an_allocator():
    def look():
        without = allocates()
        # The thread does not own its pool.
        pools = [BufferPool(), BufferPool(allocator=Allocator())]
        for pool in pools:
            pool.use()
            without = without, allocates()
        return without

    assert Task(look).result() == ((False, False), True)


def test_allocator_makes_the_large_blocks():
    allocator = Allocator()
    pool = BufferPool(allocator=allocator)
    small, large = pool.empty(1000), pool.empty(300_000)
    assert len(allocator.asked) == 1
    assert 300_000 <= allocator.asked[0] < 340_000
    assert allocator.addresses() == {large.ctypes.data}
    large[:] = 7
    del small, large
    gc.collect()
    # It waits for reuse, and is used again.
    assert len(allocator.blocks) == 1
    assert pool.empty(300_000).ctypes.data in allocator.addresses()
    assert len(allocator.asked) == 1


def test_allocated_memory_lives_as_long_as_its_views():
    allocator = Allocator()
    pool = BufferPool(allocator=allocator)
    view = pool.empty(300_000)[5:9]
    pool.close()
    del pool
    gc.collect()
    assert len(allocator.blocks) == 1
    view[:] = 1
    del view
    assert not allocator.blocks


def test_allocated_memory_is_freed_where_it_is_not_used():
    allocator = Allocator()
    pool = BufferPool(allocator=allocator)
    peak = [pool.empty(300_000) for _ in range(3)]
    del peak
    assert len(allocator.blocks) == 3
    for _ in range(600):
        pool.empty(1 << 20)
    assert len(allocator.blocks) == 1
    pool.close()
    assert not allocator.blocks


def test_pools_made_meanwhile_have_the_allocator():
    allocator = Allocator()
    with allocating(allocator):
        pool, other = BufferPool(), Task(BufferPool).result()
        with allocating(None):
            without = BufferPool()
        within = BufferPool()
    arrays = [each.empty(300_000) for each in (pool, other, without, within, BufferPool())]
    assert [array.ctypes.data in allocator.addresses() for array in arrays] == [
        True,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "allocator, error",
    [
        (Allocator(shift=8), ContractError),
        (lambda nbytes: np.empty(nbytes // 2, np.uint8), ContractError),
        (lambda nbytes: np.empty(nbytes, np.int32), ValueError),
        (lambda nbytes: None, TypeError),
    ],
)
def test_wrong_allocators(allocator, error):
    pool = BufferPool(allocator=allocator)
    with pytest.raises(error):
        pool.empty(300_000)
    assert used(pool) == 0
    assert pool.empty(1000).size == 1000
