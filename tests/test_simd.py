"""Which variant of the kernels runs."""

import os
import subprocess
import sys

import pytest

from highway._core import simd


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


def test_an_unknown_variant_is_refused():
    before = simd.in_use()
    with pytest.raises(ValueError, match="'sse9'; expected one of plain, sse4, avx2"):
        simd.use("sse9")
    assert simd.in_use() == before


@pytest.mark.parametrize("wanted", ["plain", "sse4", "avx2", ""])
def test_the_environment_chooses(wanted):
    script = "from highway._core import simd; print(simd.in_use())"
    environment = {**os.environ, "HIGHWAY_SIMD": wanted}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    found = list(simd.VARIANTS).index(answer.stdout.strip())
    assert found <= simd.VARIANTS[wanted or "avx2"]
    if wanted == "plain":
        assert found == 0


def test_the_environment_is_checked():
    script = "from highway._core import geometry"
    environment = {**os.environ, "HIGHWAY_SIMD": "sse9"}
    answer = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "HIGHWAY_SIMD (or name) is 'sse9'" in answer.stderr
