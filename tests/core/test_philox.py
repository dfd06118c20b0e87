"""Philox4x32-10: known answers, a plain Python reference, and the keyed permutation."""

import math
import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway._core import philox

# From Random123 (D. E. Shaw Research), tests/kat_vectors, the lines "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

WORD = st.integers(0, 2**32 - 1)
SEED = st.integers(0, 2**64 - 1)


def reference(counter, seed):
    """Philox4x32-10 as the paper writes it, in Python's integers."""
    word0, word1, word2, word3 = counter
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * word0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * word2, 2**32)
        word0, word1, word2, word3 = high1 ^ word1 ^ key0, low1, high0 ^ word3 ^ key1, low0
        key0 = (key0 + 0x9E3779B9) % 2**32
        key1 = (key1 + 0xBB67AE85) % 2**32
    return [word0, word1, word2, word3]


def draw(seed, epoch, position, indices, first, count):
    out = np.empty((len(indices), count), dtype=np.uint64)
    philox.draws(seed, epoch, position, np.asarray(indices, dtype=np.uint32), first, out)
    return out


def permutation(seed, epoch, size, position=7):
    out = np.empty(size, dtype=np.int64)
    philox.permute(seed, epoch, position, size, np.arange(size), out)
    return out


def chi_square_limit(cells):
    """1 in 100 000 chi-square statistics of so many equally likely cells are above (Wilson, Hilferty)."""
    freedom = cells - 1
    return freedom * (1 - 2 / (9 * freedom) + 4.265 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    out = np.empty((1, 4), dtype=np.uint32)
    philox.blocks(np.array([counter], dtype=np.uint32), key[0] | key[1] << 32, out)
    assert out[0].tolist() == expected
    assert reference(counter, key[0] | key[1] << 32) == expected


@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), max_size=5), SEED)
def test_blocks_are_the_reference(counters, seed):
    array = np.array(counters, dtype=np.uint32).reshape(-1, 4)
    array.setflags(write=False)
    out = np.empty_like(array)
    philox.blocks(array, seed, out)
    assert out.tolist() == [reference(counter, seed) for counter in counters]


def test_blocks_in_place():
    array = np.arange(40, dtype=np.uint32).reshape(10, 4)
    expected = [reference(row, 5) for row in array.tolist()]
    philox.blocks(array, 5, array)
    assert array.tolist() == expected


@given(SEED, WORD, WORD, st.lists(WORD, max_size=4), st.integers(0, 2**33 - 5), st.integers(0, 5))
def test_draws_are_words_of_blocks(seed, epoch, position, indices, first, count):
    expected = []
    for index in indices:
        row = []
        for number in range(first, first + count):
            words = reference([index, epoch, position, number // 2], seed)
            low, high = words[2 * (number % 2) :][:2]
            row.append(low | high << 32)
        expected.append(row)
    assert draw(seed, epoch, position, indices, first, count).tolist() == expected


def test_draws_do_not_wrap_around():
    draw(0, 0, 0, [1], 2**33 - 1, 1)
    for first, count in ((2**33, 1), (2**33 - 1, 2), (2**64 - 1, 2)):
        with pytest.raises(ValueError, match="has 2\\*\\*33 at one position"):
            draw(0, 0, 0, [1], first, count)


@given(st.lists(st.tuples(SEED, SEED), max_size=20))
def test_scale_is_the_upper_half_of_the_product(pairs):
    values = np.array([value for value, _ in pairs], dtype=np.uint64)
    spans = np.array([span for _, span in pairs], dtype=np.uint64)
    out = np.empty_like(values)
    philox.scale(values, spans, out)
    assert out.tolist() == [value * span >> 64 for value, span in pairs]


def test_normals_are_quantiles():
    edges = [0, 1 << 12, 2**64 - 1, 2**63, 2**63 - 1]
    middle = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64).tolist()
    tails = [1 << shift for shift in range(12, 64)]
    values = np.array(edges + middle + tails, dtype=np.uint64)
    out = np.empty(len(values))
    philox.normals(values, out)
    standard = statistics.NormalDist()
    expected = [standard.inv_cdf((value // 2**12 + 0.5) / 2**52) for value in values.tolist()]
    np.testing.assert_allclose(out, expected, rtol=4e-15)


def test_normals_have_fixed_bits():
    values = np.array([0, 2**60, 2**62, 3 << 62, 2**64 - 1, 0x0123456789ABCDEF], dtype=np.uint64)
    out = np.empty(len(values))
    philox.normals(values, out)
    assert [value.hex() for value in out.tolist()] == [
        "-0x1.06b48528cea51p+3",
        "-0x1.88bc1fbe1dab9p+0",
        "-0x1.5956b87528a46p-1",
        "0x1.5956b87528a4dp-1",
        "0x1.06b48528cea51p+3",
        "-0x1.4ee2dc0a9e007p+1",
    ]


@pytest.mark.parametrize(
    "size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1000, 4099, 65536, 100_003]
)
def test_permutation_holds_everything_once(size):
    for seed, epoch in ((0, 0), (1, 0), (0, 1), (2**64 - 1, 2**32 - 1)):
        assert np.array_equal(np.sort(permutation(seed, epoch, size)), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 17, 1000, 65_537, 10**6])
def test_rounds_that_are_kept_are_those_that_are_computed(size):
    """After so many places, a permutation reads its rounds from a table."""
    places = np.random.default_rng(size).integers(0, size, 200)
    seeds = np.random.default_rng(1).integers(0, 2**63, 2).tolist()
    for seed in seeds:
        one, all_of_them = np.empty(1, np.int64), np.empty(size, np.int64)
        computed = []
        for place in places[:8].tolist():
            philox.permute(seed, 5, 9, size, np.array([place]), one)
            computed.append(int(one[0]))
        philox.permute(seed, 5, 9, size, np.arange(size), all_of_them)
        assert np.bincount(all_of_them, minlength=size).max() == 1
        assert all_of_them[places[:8]].tolist() == computed
        for count in (1, 7, 8, 9, 200):
            out = places[:count].copy()
            philox.permute(seed, 5, 9, size, out, out)
            assert out.tolist() == all_of_them[places[:count]].tolist()


def test_permutation_reaches_the_largest_size():
    places = np.array([0, 1, 2**31, 2**32 - 1])
    out = np.empty(4, dtype=np.int64)
    philox.permute(3, 0, 7, 2**32, places, out)
    assert len(set(out.tolist())) == 4
    assert 0 <= out.min() <= out.max() < 2**32
    assert out.max() > 2**20


def test_permutation_depends_on_all_of_its_key():
    base = permutation(0, 0, 100, position=7).tolist()
    others = [
        permutation(1, 0, 100),
        permutation(2**32, 0, 100),
        permutation(0, 1, 100),
        permutation(0, 0, 100, position=8),
        permutation(0, 0, 101),
    ]
    assert all(other.tolist() != base for other in others)


def test_permutation_is_the_reference():
    """A plain Python network of the same definition, on sizes where its sides and its walking differ."""

    def place_of(seed, epoch, position, size, place):
        a = max(4, (math.isqrt(size) + 1) // 2 * 2)
        b = max(4, -(-size // a))

        def word(half, turn, bound):
            words = reference([half, epoch, position, turn], seed)
            return (words[0] + (words[1] % 2**16) * 2**32) * bound >> 48

        while True:
            left, right = divmod(place, b)
            for turn in range(0, 16, 2):
                left = (left + word(right, turn, a)) % a
                right = (right + word(left, turn + 1, b)) % b
            place = left * b + right
            if place < size:
                return place

    for size in (1, 2, 7, 16, 17, 99, 100, 101, 1_281_167, 2**32 - 1, 2**32):
        places = np.unique(np.linspace(0, size - 1, 6).astype(np.int64))
        out = np.empty_like(places)
        philox.permute(0x0123456789ABCDEF, 3, 2**32 - 1, size, places, out)
        assert out.tolist() == [place_of(0x0123456789ABCDEF, 3, 2**32 - 1, size, p) for p in places.tolist()]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_small_orders_are_equally_likely(size):
    """Every order of up to 6 samples, counted over many seeds."""
    cells = math.factorial(size)
    trials = 40 * cells
    weights = size ** np.arange(size)
    codes = [int(permutation(seed, 0, size) @ weights) for seed in range(trials)]
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == cells
    statistic = ((counts - 40) ** 2 / 40).sum()
    assert statistic < chi_square_limit(cells)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 25, 36, 49, 50])
def test_every_sample_stands_everywhere(size):
    """Which sample stands at which place, and which samples stand side by side, over 3000 epochs."""
    trials = 3000
    orders = np.array([permutation(11, epoch, size) for epoch in range(trials)])
    stands = np.array([np.bincount(orders[:, place], minlength=size) for place in range(size)])
    expected = trials / size
    # Rows and columns both add up to `trials`: (size - 1) ** 2 free cells, and a statistic that much smaller.
    statistic = ((stands - expected) ** 2 / expected).sum() * (size - 1) / size
    assert statistic < chi_square_limit((size - 1) ** 2 + 1)
    pairs = np.bincount(orders[:, 0] * size + orders[:, 1], minlength=size * size).reshape(size, size)
    assert not pairs.diagonal().any()
    off = pairs[~np.eye(size, dtype=bool)]
    expected = trials / len(off)
    assert ((off - expected) ** 2 / expected).sum() < chi_square_limit(len(off))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 25, 36, 49, 64, 81])
def test_odd_and_even_orders_come_up_alike(size):
    """A Feistel network with exclusive or makes even permutations only."""

    def is_odd(order):
        seen, odd = set(), 0
        for start in range(len(order)):
            length = 0
            while start not in seen:
                seen.add(start)
                start = order[start]
                length += 1
            odd ^= length > 0 and length % 2 == 0
        return odd

    trials = 4000
    odd = sum(is_odd(permutation(seed, 5, size).tolist()) for seed in range(trials))
    assert abs(odd - trials / 2) < 4.5 * math.sqrt(trials) / 2


def test_neighbors_do_not_stay_neighbors():
    order = permutation(0, 0, 100_000)
    apart = np.abs(np.diff(order))
    # The mean distance of two random places is a third of the size.
    assert abs(apart.mean() / (100_000 / 3) - 1) < 0.02
    assert (apart == 1).sum() < 15


def test_noise_is_the_bytes_of_blocks():
    for length in (0, 1, 15, 16, 17, 100):
        out = np.empty((2, length), dtype=np.uint8)
        philox.noise(99, 4, 5, np.array([6, 2**32 - 1], dtype=np.uint32), out)
        for row, index in zip(out, (6, 2**32 - 1), strict=True):
            words = [reference([index, 4, 5, block], 99) for block in range(1, 8)]
            assert row.tobytes() == np.array(words, dtype="<u4").tobytes()[:length]


def test_threads_give_equal_bits():
    whole = permutation(1, 2, 20_011)

    def part(places):
        out = np.empty_like(places)
        philox.permute(1, 2, 7, 20_011, places, out)
        return out

    for threads in (1, 2, 8):
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(part, np.array_split(np.arange(20_011), 16)))
        assert np.array_equal(np.concatenate(parts), whole)


def test_entries_refuse_what_does_not_fit():
    words = np.zeros((3, 4), dtype=np.uint32)
    longs = np.zeros(3, dtype=np.uint64)
    places = np.zeros(3, dtype=np.int64)
    indices = np.zeros(3, dtype=np.uint32)
    wrong = [
        lambda: philox.blocks(words[:, :3].copy(), 0, words),
        lambda: philox.blocks(words, 0, words[:2].copy()),
        lambda: philox.blocks(words.astype(np.int64), 0, words),
        lambda: philox.blocks(words[:, ::-1], 0, words),
        lambda: philox.draws(0, 0, 0, indices, 0, np.zeros((2, 1), dtype=np.uint64)),
        lambda: philox.scale(longs, longs[:2], longs),
        lambda: philox.scale(longs, longs, longs[:2]),
        lambda: philox.normals(longs, np.zeros(2)),
        lambda: philox.permute(0, 0, 0, 5, places, places[:2]),
        lambda: philox.permute(0, 0, 0, 0, places, places),
        lambda: philox.permute(0, 0, 0, 2**32 + 1, places, places),
        lambda: philox.permute(0, 0, 0, 5, places + 5, places),
        lambda: philox.permute(0, 0, 0, 5, places - 1, places),
        lambda: philox.noise(0, 0, 0, indices, np.zeros((2, 5), dtype=np.uint8)),
    ]
    for call in wrong:
        with pytest.raises(ValueError):
            call()
    for call in (
        lambda: philox.permute(-1, 0, 0, 5, places, places),
        lambda: philox.permute(2**64, 0, 0, 5, places, places),
        lambda: philox.permute(0, 2**32, 0, 5, places, places),
        lambda: philox.noise(0, 0, 2**32, indices, np.zeros((3, 5), dtype=np.uint8)),
    ):
        with pytest.raises(OverflowError):
            call()
    frozen = np.zeros(3, dtype=np.int64)
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        philox.permute(0, 0, 0, 5, places, frozen)
    with pytest.raises(TypeError):
        philox.permute(0, 0, 0, 5, None, places)
