import signal
import sys
import threading

import pytest

from highway._core import simd

# A shell that runs the tests in the background leaves Ctrl-C ignored, for them and for the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Which of the files have tests that tox does not run with every Python: "test_" and one of these. The markers are
# explained in pyproject.toml.
MARKED = {
    "kernel": """
    annotations_follow boxes colour crew erase_and_mix filters fit fused_runs geometry guard_pages jpeg
    jpeg_sequential mix noise one_pass philox policies resample simd tables values warp warps
    """,
    "once": """
    addresses annotations arrays_benchmark compose demo detection docstrings examples floor_plan link
    list_reader machine_stats parcels placement readme security sheet stats system_packages tuning voc wrappers
    """,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    marks = {f"test_{name}": mark for mark, names in MARKED.items() for name in names.split()}
    for item in items:
        if item.path.stem in marks:
            item.add_marker(marks[item.path.stem])


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
