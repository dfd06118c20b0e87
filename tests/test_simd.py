"""Which variant of the kernels runs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from highway._core import simd, values


def test_what_was_asked_for_runs_or_less():
    before = simd.in_use()
    try:
        for name, level in simd.VARIANTS.items():
            used = simd.use(name)
            assert simd.in_use() == used
            assert simd.VARIANTS[used] <= level
        assert simd.use("plain") == "plain"
    finally:
        simd.use(before)


def cpu_has(*wanted):
    """Whether Linux lists these flags of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError as error:
        pytest.skip(f"this system does not list what its processor has: {error}")
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return set(wanted) <= set(flags)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("sse4", ["sse4_1"]),
        ("avx2", ["sse4_1", "avx2", "f16c"]),
        ("avx512", ["sse4_1", "avx2", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vbmi"]),
    ],
)
def test_what_the_cpu_has_is_used(name, flags):
    before = simd.in_use()
    used = simd.use(name)
    simd.use(before)
    assert (used == name) == cpu_has(*flags)


def test_kernels_run_what_is_in_use(simd_variant):
    """Seen where the variants may differ: F16C keeps what a NaN holds, the other code makes a plain one."""
    factors = np.array([0x7FC12345], np.uint32).view(np.float32)
    for pixels in (8, 50):
        images = np.ones((1, 1, pixels, 1), np.uint8)
        out = np.zeros(images.shape, np.uint16)
        values.normalize(images, factors, factors, out)
        assert set(out.ravel().tolist()) == {0x7E09 if simd_variant in ("avx2", "avx512") else 0x7E00}


def test_an_unknown_variant_is_refused():
    before = simd.in_use()
    with pytest.raises(ValueError, match="'sse9'; expected one of plain, sse4, avx2, avx512"):
        simd.use("sse9")
    assert simd.in_use() == before


@pytest.mark.parametrize("wanted", ["plain", "sse4", "avx2", "avx512", ""])
def test_the_environment_chooses(wanted):
    script = "from highway._core import simd; print(simd.in_use())"
    environment = {**os.environ, "HIGHWAY_SIMD": wanted}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    found = list(simd.VARIANTS).index(answer.stdout.strip())
    assert found <= simd.VARIANTS[wanted or "avx512"]
    if wanted == "plain":
        assert found == 0


def test_the_environment_is_checked():
    script = "from highway._core import geometry"
    environment = {**os.environ, "HIGHWAY_SIMD": "sse9"}
    answer = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "HIGHWAY_SIMD is 'sse9'" in answer.stderr
