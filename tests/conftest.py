import signal
import sys
import threading

import pytest

from highway._core import simd

# A shell that runs the tests in the background leaves Ctrl-C ignored, for them and for the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files whose tests are marked `kernel`.
KERNELS = frozenset(
    [
        "test_annotations_follow",
        "test_boxes",
        "test_colour",
        "test_crew",
        "test_erase_and_mix",
        "test_filters",
        "test_fit",
        "test_fused_runs",
        "test_geometry",
        "test_guard_pages",
        "test_jpeg",
        "test_jpeg_sequential",
        "test_mix",
        "test_noise",
        "test_one_pass",
        "test_philox",
        "test_policies",
        "test_resample",
        "test_simd",
        "test_tables",
        "test_values",
        "test_warp",
        "test_warps",
    ]
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in KERNELS:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Every test ends the threads that it starts: those of pipelines are named after their module."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("highway ")]
    assert not left, f"threads are left: {left}"


@pytest.fixture(params=sorted(simd.VARIANTS))
def simd_variant(request):
    """Run with every variant of the kernels that this CPU has; the others are what it has less of."""
    before = simd.in_use()
    yield simd.use(request.param)
    simd.use(before)


@pytest.fixture
def restless():
    """Threads change places as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
