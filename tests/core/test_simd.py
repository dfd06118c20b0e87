"""Which variant of the kernels runs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import highway
from highway._core import simd
from highway._core.pixels import values
from highway.errors import ArgumentError, HighwayError, SettingError


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
        values.normalize(images, factors, factors, False, out)
        assert set(out.ravel().tolist()) == {0x7E09 if simd_variant in ("avx2", "avx512") else 0x7E00}


def test_an_unknown_variant_is_refused():
    before = simd.in_use()
    with pytest.raises(ArgumentError, match="'sse9'; expected one of plain, sse4, avx2, avx512"):
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


REFUSED = "the environment variable HIGHWAY_SIMD is 'sse9'; expected one of plain, sse4, avx2, avx512, "


def refused(*words):
    """What Python says that is started with these words and a variant that there is not."""
    package = str(Path(highway.__file__).parents[1])
    environment = {**os.environ, "HIGHWAY_SIMD": "sse9", "PYTHONPATH": package}
    answer = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True
    )
    assert (answer.returncode, answer.stdout) == (1, "")
    return answer.stderr.splitlines()


@pytest.mark.parametrize(
    "what", ["highway", "highway.errors", "highway._core.pixels.geometry", "highway.transforms"]
)
def test_the_environment_is_checked_at_import(what):
    *_, last = refused("-c", f"import {what}")
    assert last.startswith(f"highway.errors.SettingError: {REFUSED}")


def test_the_command_tells_it_in_one_line(tmp_path):
    script = tmp_path / "highway"
    script.write_text("from highway.cli import main\n")
    for words in (("-m", "highway", "info"), (script, "info")):
        (line,) = refused(*words)
        assert line.startswith(f"highway: {REFUSED}")


def test_the_error_can_be_caught_as_either():
    assert issubclass(SettingError, (HighwayError, ImportError)) and issubclass(SettingError, ImportError)
    package = str(Path(highway.__file__).parents[1])
    script = "try:\n    import highway\nexcept ImportError as error:\n    print(type(error).__name__)"
    environment = {**os.environ, "HIGHWAY_SIMD": "1", "PYTHONPATH": package}
    answer = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (answer.stdout, answer.stderr) == ("SettingError\n", "")
