"""The clock that the tests measure by: it counts what a thread can do, and a body that takes too long fails."""

import threading

import pytest
from concurrency import within


def test_body_that_takes_too_long_fails():
    with (
        pytest.raises(AssertionError, match=r"took 0\.\d+ s or more; expected less than 0\.1 s"),
        within(0.1),
    ):
        threading.Event().wait(0.5)


def test_body_that_is_quick_passes():
    with within(1):
        pass


def test_error_of_the_body_is_not_hidden():
    with pytest.raises(KeyError), within(1):
        raise KeyError
