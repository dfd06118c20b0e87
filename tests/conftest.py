import threading

import pytest


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Every test ends the threads that it starts: those of pipelines are named after their module."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("highway ")]
    assert not left, f"threads are left: {left}"
