"""Random numbers as a function of seed, sample, epoch and position: Philox4x32-10 over whole arrays.

The key is the seed (low word first). The counter is (index of the sample, epoch, position, block); a block
gives four words of 32 bits, which are two draws of 64 bits (low word first). The results do not
depend on any state: the same arguments give the same bits on every machine, in every thread, in any order.

Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport frexp, sqrt
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef enum:
    # Four rounds mix a large domain; small domains (16 elements) need more: here pairs and
    # triples of positions are within 3e-5 of uniform in total variation (computed exactly, round by round).
    ROUNDS = 16
    # Permutations whose round functions are kept: of the epochs of several readers.
    KEPT = 8
    # Elements of a permutation that are computed side by side.
    LANES = 8


def blocks(const uint32_t[:, ::1] counters not None, uint64_t key, uint32_t[:, ::1] out not None):
    """Compute Philox4x32-10 of every row.

    Parameters
    ----------
    counters : uint32 (M, 4)
    key : int
        64 bits, low word first.
    out : uint32 (M, 4)
        May be `counters` itself.

    Raises
    ------
    ValueError
        The shapes disagree.
    """
    if counters.shape[1] != 4 or out.shape[0] != counters.shape[0] or out.shape[1] != 4:
        raise ValueError(
            f"philox.blocks: counters ({counters.shape[0]}, {counters.shape[1]}) and "
            f"out ({out.shape[0]}, {out.shape[1]}); expected (M, 4) both"
        )
    cdef Py_ssize_t row, word
    with nogil:
        for row in range(counters.shape[0]):
            for word in range(4):
                out[row, word] = counters[row, word]
            philox4x32(&out[row, 0], <uint32_t>key, <uint32_t>(key >> 32))


def draws(
    uint64_t seed,
    uint32_t epoch,
    uint32_t position,
    const uint32_t[::1] indices not None,
    uint64_t first,
    uint64_t[:, ::1] out not None,
):
    """Compute the draws `first`, `first` + 1, ... of each sample.

    Parameters
    ----------
    seed, epoch, position : int
        64, 32 and 32 bits.
    indices : uint32 (N,)
    first : int
        Number of the first draw wanted; first + K is at most 2**33.
    out : uint64 (N, K)

    Raises
    ------
    ValueError
        The shapes disagree, or a draw beyond 2**33 is requested.
    """
    cdef Py_ssize_t count = out.shape[1]
    if out.shape[0] != indices.shape[0]:
        raise ValueError(f"philox.draws: {indices.shape[0]} indices, but out has {out.shape[0]} rows")
    if first > <uint64_t>1 << 33 or <uint64_t>count > (<uint64_t>1 << 33) - first:
        raise ValueError(
            f"philox.draws: {count} draws from {first} on requested; a sample has 2**33 at one position"
        )
    cdef Py_ssize_t row, column
    cdef uint64_t number
    cdef uint32_t[4] words
    with nogil:
        for row in range(indices.shape[0]):
            for column in range(count):
                number = first + <uint64_t>column
                if column == 0 or not number & 1:
                    words[0] = indices[row]
                    words[1] = epoch
                    words[2] = position
                    words[3] = <uint32_t>(number >> 1)
                    philox4x32(words, <uint32_t>seed, <uint32_t>(seed >> 32))
                if number & 1:
                    out[row, column] = words[2] | <uint64_t>words[3] << 32
                else:
                    out[row, column] = words[0] | <uint64_t>words[1] << 32


cdef inline uint64_t high_product(uint64_t left, uint64_t right) noexcept nogil:
    """Return the upper 64 of the 128 bits of left * right."""
    cdef uint64_t left0 = left & 0xFFFFFFFFu, left1 = left >> 32
    cdef uint64_t right0 = right & 0xFFFFFFFFu, right1 = right >> 32
    cdef uint64_t middle = left1 * right0 + (left0 * right0 >> 32)
    cdef uint64_t other = left0 * right1 + (middle & 0xFFFFFFFFu)
    return left1 * right1 + (middle >> 32) + (other >> 32)


def scale(
    const uint64_t[::1] values not None, const uint64_t[::1] spans not None, uint64_t[::1] out not None
):
    """Maps draws to 0 .. span - 1: out = values * spans / 2**64, rounded down.

    Parameters
    ----------
    values, spans, out : uint64 (M,)

    Raises
    ------
    ValueError
        The lengths disagree.
    """
    if spans.shape[0] != values.shape[0] or out.shape[0] != values.shape[0]:
        raise ValueError(
            f"philox.scale: {values.shape[0]} values, {spans.shape[0]} spans, out of {out.shape[0]}; "
            "expected one length"
        )
    cdef Py_ssize_t i
    with nogil:
        for i in range(values.shape[0]):
            out[i] = high_product(values[i], spans[i])


# Algorithm AS 241 (PPND16): coefficients of the numerators and denominators, highest power first.
cdef double[8] CENTRE_ABOVE = [
    2.5090809287301226727e3, 3.3430575583588128105e4,
    6.7265770927008700853e4, 4.5921953931549871457e4,
    1.3731693765509461125e4, 1.9715909503065514427e3,
    1.3314166789178437745e2, 3.3871328727963666080e0,
]
cdef double[8] CENTRE_BELOW = [
    5.2264952788528545610e3, 2.8729085735721942674e4,
    3.9307895800092710610e4, 2.1213794301586595867e4,
    5.3941960214247511077e3, 6.8718700749205790830e2,
    4.2313330701600911252e1, 1.0,
]
cdef double[8] SIDE_ABOVE = [
    7.74545014278341407640e-4, 2.27238449892691845833e-2,
    2.41780725177450611770e-1, 1.27045825245236838258e0,
    3.64784832476320460504e0, 5.76949722146069140550e0,
    4.63033784615654529590e0, 1.42343711074968357734e0,
]
cdef double[8] SIDE_BELOW = [
    1.05075007164441684324e-9, 5.47593808499534494600e-4,
    1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940e0,
    2.05319162663775882187e0, 1.0,
]
cdef double[8] TAIL_ABOVE = [
    2.01033439929228813265e-7, 2.71155556874348757815e-5,
    1.24266094738807843860e-3, 2.65321895265761230930e-2,
    2.96560571828504891230e-1, 1.78482653991729133580e0,
    5.46378491116411436990e0, 6.65790464350110377720e0,
]
cdef double[8] TAIL_BELOW = [
    2.04426310338993978564e-15, 1.42151175831644588870e-7,
    1.84631831751005468180e-5, 7.86869131145613259100e-4,
    1.48753612908506148525e-2, 1.36929880922735805310e-1,
    5.99832206555887937690e-1, 1.0,
]


cdef inline double horner(const double *coefficients, double x) noexcept nogil:
    cdef double total = coefficients[0]
    cdef int power
    for power in range(1, 8):
        total = total * x + coefficients[power]
    return total


cdef double logarithm(double x) noexcept nogil:
    """Return the natural logarithm of a positive normal number to about 1e-16, exactly rounded at each step.

    The C library's own differs in the last bit from machine to machine.
    """
    cdef int exponent
    cdef double mantissa = frexp(x, &exponent)
    if mantissa < 0.70710678118654752440:
        mantissa *= 2.0
        exponent -= 1
    cdef double s = (mantissa - 1.0) / (mantissa + 1.0)
    cdef double square = s * s
    cdef double total = 0.0
    cdef int term
    for term in range(23, 0, -2):
        total = total * square + 1.0 / term
    return exponent * 0.69314718055994530942 + 2.0 * s * total


cdef double normal_quantile(double p) noexcept nogil:
    """Return the quantile of the standard normal distribution at p, 0 < p < 1.

    Algorithm AS 241 (PPND16): M. J. Wichura, "The percentage points of the normal distribution",
    Applied Statistics 37 (1988), 477-484.
    """
    cdef double q = p - 0.5
    cdef double r, value
    if -0.425 <= q <= 0.425:
        r = 0.180625 - q * q
        return q * horner(CENTRE_ABOVE, r) / horner(CENTRE_BELOW, r)
    r = sqrt(-logarithm(p if q < 0 else 1.0 - p))
    if r <= 5.0:
        value = horner(SIDE_ABOVE, r - 1.6) / horner(SIDE_BELOW, r - 1.6)
    else:
        value = horner(TAIL_ABOVE, r - 5.0) / horner(TAIL_BELOW, r - 5.0)
    return -value if q < 0 else value


def normals(const uint64_t[::1] values not None, double[::1] out not None):
    """Turns draws into standard normal numbers, each from the upper 52 bits of one draw.

    Parameters
    ----------
    values : uint64 (M,)
    out : float64 (M,)
        The same bits on every machine.

    Raises
    ------
    ValueError
        The lengths disagree.
    """
    if out.shape[0] != values.shape[0]:
        raise ValueError(
            f"philox.normals: {values.shape[0]} values, out of {out.shape[0]}; expected one length"
        )
    cdef Py_ssize_t i
    with nogil:
        for i in range(values.shape[0]):
            out[i] = normal_quantile((<double>(values[i] >> 12) + 0.5) * (1.0 / 4503599627370496.0))


cdef inline uint32_t feistel_word(
    uint32_t half, uint32_t epoch, uint32_t position, uint32_t turn, uint64_t seed, uint32_t bound
) noexcept nogil:
    """Round function: return a number in 0 .. bound - 1 (bound at most 2**16) from 48 bits of one block."""
    cdef uint32_t[4] words
    words[0] = half
    words[1] = epoch
    words[2] = position
    words[3] = turn
    philox4x32(words, <uint32_t>seed, <uint32_t>(seed >> 32))
    return <uint32_t>(((words[0] | <uint64_t>(words[1] & 0xFFFFu) << 32) * bound) >> 48)


cdef class Rounds:
    """The results of the round functions of a permutation, once so many were asked for that computing all pays off."""

    cdef uint32_t a, b
    # Rounds 0, 2, ... for each right side, then rounds 1, 3, ... for each left side.
    cdef uint16_t *words
    cdef uint64_t asked

    def __cinit__(self, uint64_t size):
        # The sides of the domain: each about the square root, `a` even, and large enough to mix quickly.
        self.a = <uint32_t>sqrt(<double>size)
        self.a = max(<uint32_t>4, (self.a + 1) & ~<uint32_t>1)
        self.b = max(<uint32_t>4, <uint32_t>((size + self.a - 1) // self.a))

    def __dealloc__(self):
        PyMem_RawFree(self.words)


cdef dict known_rounds = {}


cdef Rounds rounds_for(uint64_t seed, uint32_t epoch, uint32_t position, uint64_t size, Py_ssize_t count):
    """Return the sides of a permutation, with its rounds if they pay off; `count` of its elements are asked for now."""
    key = (seed, epoch, position, size)
    cdef Rounds rounds = known_rounds.get(key)
    cdef uint16_t *words
    cdef uint32_t half, turn
    cdef uint32_t a, b
    if rounds is None:
        rounds = Rounds(size)
        while len(known_rounds) >= KEPT:
            known_rounds.pop(next(iter(known_rounds), None), None)
        known_rounds[key] = rounds
    a, b = rounds.a, rounds.b
    rounds.asked += <uint64_t>count
    if rounds.words != NULL or rounds.asked < <uint64_t>a + b:
        return rounds
    words = <uint16_t *>PyMem_RawMalloc(sizeof(uint16_t) * (ROUNDS // 2) * (<size_t>a + b))
    if words == NULL:
        raise MemoryError
    with nogil:
        for turn in range(ROUNDS // 2):
            for half in range(b):
                words[<size_t>turn * b + half] = <uint16_t>feistel_word(half, epoch, position, 2 * turn, seed, a)
        for turn in range(ROUNDS // 2):
            for half in range(a):
                words[(ROUNDS // 2) * <size_t>b + <size_t>turn * a + half] = <uint16_t>feistel_word(
                    half, epoch, position, 2 * turn + 1, seed, b
                )
    if rounds.words == NULL:
        rounds.words = words
    else:
        # Another thread was faster.
        PyMem_RawFree(words)
    return rounds


cdef inline uint32_t wrapped(uint32_t total, uint32_t bound) noexcept nogil:
    """Return ``total % bound`` of a total below 2 * bound."""
    return total - bound if total >= bound else total


cdef int64_t permuted(
    uint64_t place, uint32_t a, uint32_t b, uint64_t size, uint64_t seed, uint32_t epoch, uint32_t position
) noexcept nogil:
    """Return the element at a place."""
    cdef uint32_t turn, left, right
    while True:
        left = <uint32_t>(place // b)
        right = <uint32_t>(place % b)
        for turn in range(ROUNDS // 2):
            left = wrapped(left + feistel_word(right, epoch, position, 2 * turn, seed, a), a)
            right = wrapped(right + feistel_word(left, epoch, position, 2 * turn + 1, seed, b), b)
        place = <uint64_t>left * b + right
        if place < size:
            return <int64_t>place


cdef void permute_known(
    const uint16_t *of_right,
    uint32_t a,
    uint32_t b,
    uint64_t size,
    const int64_t *places,
    Py_ssize_t count,
    int64_t *out,
) noexcept nogil:
    """Write the elements at places, with the words of `Rounds`; `out` may be `places`."""
    cdef const uint16_t *of_left = of_right + (ROUNDS // 2) * <size_t>b
    cdef uint32_t[LANES] left, right
    cdef uint32_t turn
    cdef int lane, lanes
    cdef uint64_t place
    cdef Py_ssize_t i = 0
    while i < count:
        # Each round waits for the one before: several elements at a time keep the processor busy.
        lanes = <int>min(LANES, count - i)
        for lane in range(LANES):
            left[lane] = <uint32_t>places[i + (lane if lane < lanes else 0)]
            right[lane] = left[lane] % b
            left[lane] //= b
        walk(of_right, of_left, a, b, left, right)
        for lane in range(lanes):
            place = <uint64_t>left[lane] * b + right[lane]
            while place >= size:
                left[lane] = <uint32_t>(place // b)
                right[lane] = <uint32_t>(place % b)
                for turn in range(ROUNDS // 2):
                    left[lane] = wrapped(left[lane] + of_right[<size_t>turn * b + right[lane]], a)
                    right[lane] = wrapped(right[lane] + of_left[<size_t>turn * a + left[lane]], b)
                place = <uint64_t>left[lane] * b + right[lane]
            out[i + lane] = <int64_t>place
        i += lanes


cdef inline void walk(
    const uint16_t *of_right, const uint16_t *of_left, uint32_t a, uint32_t b, uint32_t *left, uint32_t *right
) noexcept nogil:
    """Apply all rounds to LANES elements."""
    cdef int _turn, lane
    for _turn in range(ROUNDS // 2):
        for lane in range(LANES):
            left[lane] = wrapped(left[lane] + of_right[right[lane]], a)
        for lane in range(LANES):
            right[lane] = wrapped(right[lane] + of_left[left[lane]], b)
        of_right += b
        of_left += a


def permute(
    uint64_t seed,
    uint32_t epoch,
    uint32_t position,
    uint64_t size,
    const int64_t[::1] places not None,
    int64_t[::1] out not None,
):
    """Return the elements at the given places of a random permutation of 0 .. size - 1.

    A Feistel network over pairs (left < a, right < b), a * b >= size, whose round function is Philox with
    the counter (half, epoch, position, round), and which is applied again while the result is not below
    `size` (cycle walking). Addition modulo a and b instead of exclusive or: with an even `a`, both odd and
    even permutations occur.

    Source: J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.

    Parameters
    ----------
    seed, epoch, position : int
        64, 32 and 32 bits.
    size : int
        1 to 2**32.
    places : int64 (M,)
        Each in 0 .. size - 1.
    out : int64 (M,)
        Each in 0 .. size - 1; all different when the places are.

    Raises
    ------
    ValueError
        The lengths disagree, or the size or a place is out of range.
    """
    if not 1 <= size <= <uint64_t>1 << 32:
        raise ValueError(f"philox.permute: size {size}; expected 1 to 2**32")
    if out.shape[0] != places.shape[0]:
        raise ValueError(
            f"philox.permute: {places.shape[0]} places, out of {out.shape[0]}; expected one length"
        )
    cdef Py_ssize_t i, outside = -1
    cdef Rounds rounds = rounds_for(seed, epoch, position, size, places.shape[0])
    with nogil:
        for i in range(places.shape[0]):
            if places[i] < 0 or <uint64_t>places[i] >= size:
                outside = i
                break
        if outside < 0 and rounds.words != NULL:
            permute_known(rounds.words, rounds.a, rounds.b, size, &places[0], places.shape[0], &out[0])
        elif outside < 0:
            for i in range(places.shape[0]):
                out[i] = permuted(<uint64_t>places[i], rounds.a, rounds.b, size, seed, epoch, position)
    if outside >= 0:
        raise ValueError(f"philox.permute: place {places[outside]}; expected 0 to {size - 1}")


cdef inline void put_word(uint8_t *out, uint32_t word) noexcept nogil:
    out[0] = <uint8_t>word
    out[1] = <uint8_t>(word >> 8)
    out[2] = <uint8_t>(word >> 16)
    out[3] = <uint8_t>(word >> 24)


cdef inline void noise_block(
    uint32_t index, uint32_t epoch, uint32_t position, uint32_t block, uint64_t seed, uint8_t *out
) noexcept nogil:
    cdef uint32_t[4] words
    words[0] = index
    words[1] = epoch
    words[2] = position
    words[3] = block
    philox4x32(words, <uint32_t>seed, <uint32_t>(seed >> 32))
    put_word(out, words[0])
    put_word(out + 4, words[1])
    put_word(out + 8, words[2])
    put_word(out + 12, words[3])


cdef void noise_row(
    uint32_t index, uint32_t epoch, uint32_t position, uint64_t seed, uint8_t *out, Py_ssize_t length
) noexcept nogil:
    cdef uint8_t[16] last
    cdef Py_ssize_t block, whole = length // 16
    for block in range(whole):
        noise_block(index, epoch, position, <uint32_t>(block + 1), seed, out + 16 * block)
    if length > 16 * whole:
        noise_block(index, epoch, position, <uint32_t>(whole + 1), seed, last)
        memcpy(out + 16 * whole, last, length - 16 * whole)


def noise(
    uint64_t seed,
    uint32_t epoch,
    uint32_t position,
    const uint32_t[::1] indices not None,
    uint8_t[:, ::1] out not None,
):
    """Fill rows with random bytes of samples: blocks 1, 2, ..., low byte first (block 0 is for draws).

    Parameters
    ----------
    seed, epoch, position : int
        64, 32 and 32 bits.
    indices : uint32 (N,)
    out : uint8 (N, L)
        L below 2**35.

    Raises
    ------
    ValueError
        The shapes disagree, or a row is too long.
    """
    if out.shape[0] != indices.shape[0]:
        raise ValueError(f"philox.noise: {indices.shape[0]} indices, but out has {out.shape[0]} rows")
    if out.shape[1] >= <int64_t>1 << 35:
        raise ValueError(f"philox.noise: rows of {out.shape[1]} bytes; expected fewer than 2**35")
    cdef Py_ssize_t row
    if out.shape[1] == 0:
        return
    with nogil:
        for row in range(indices.shape[0]):
            noise_row(indices[row], epoch, position, seed, &out[row, 0], out.shape[1])
