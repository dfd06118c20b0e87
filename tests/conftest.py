import signal
import sys
import threading

import pytest

from highway._core import simd

# A shell that runs the tests in the background leaves Ctrl-C ignored, for them and for the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
