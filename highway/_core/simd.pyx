"""Which vector instructions the kernels use: the best that this CPU has, unless HIGHWAY_SIMD asks for less."""

import os

from highway.errors import ArgumentError, SettingError


cdef extern from "simd.h" nogil:
    enum:
        HW_PLAIN
        HW_SSE4
        HW_AVX2
        HW_AVX512
    int hw_simd_best()


VARIANTS = {"plain": HW_PLAIN, "sse4": HW_SSE4, "avx2": HW_AVX2, "avx512": HW_AVX512}


def use(str name not None):
    """Choose the variant that this process runs from now on: "plain", "sse4", "avx2" or "avx512".

    Every variant gives the same bits; tests compare them. At import it is the value of HIGHWAY_SIMD, or the
    best variant; any other value raises `SettingError`.

    Returns
    -------
    str
        The variant in use: the best of this CPU if that is less than `name`.

    Raises
    ------
    ArgumentError
        There is no such variant.
    """
    global level
    if name not in VARIANTS:
        raise ArgumentError(f"simd: name is {name!r}; expected one of {', '.join(VARIANTS)}")
    level = min(<int> VARIANTS[name], hw_simd_best())
    return in_use()


def in_use():
    """Return the name of the variant in use."""
    return list(VARIANTS)[level]


def _wanted():
    name = os.environ.get("HIGHWAY_SIMD") or "avx512"
    if name not in VARIANTS:
        raise SettingError(
            f"the environment variable HIGHWAY_SIMD is {name!r}; expected one of {', '.join(VARIANTS)}, "
            "or unset it for the best that this CPU has"
        )
    return name


use(_wanted())
