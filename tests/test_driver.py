"""The thread of the sockets: what it does for its role, however often it is woken."""

import threading

import pytest
from concurrency import LIMIT

from highway.transport.addresses import parse
from highway.transport.driver import Driver, Place
from highway.transport.security import Security


class Role:
    """One that has nothing to say, and counts."""

    offers = False

    def __init__(self, ticks):
        self.left = ticks
        self.done = threading.Event()

    def receive(self, above, peer, message, now):
        raise AssertionError("nobody is there")

    def settle(self):
        pass

    def due(self):
        return None

    def tick(self, now):
        self.left -= 1
        if self.left <= 0:
            self.done.set()


@pytest.fixture
def driven(tmp_path):
    """A driver of a role, bound where nobody comes; ended with the test."""
    drivers = []

    def make(role):
        place = Place(
            (parse("Test", f"ipc://{tmp_path}/here", bind=True),), True, Security("Test", None, False), 4
        )
        driver = Driver("test", role, below=place)
        drivers.append(driver)
        driver.start()
        return driver

    yield make
    for driver in drivers:
        driver.stop()
        driver.join(LIMIT)
        assert driver.error is None


def test_time_passes_for_a_role_that_nobody_speaks_to(driven):
    role = Role(3)
    driven(role)
    assert role.done.wait(LIMIT)


def test_time_passes_for_a_role_that_is_woken_all_the_time(driven):
    """Who is dead is found out, and PING is said, also where every wait ends early."""
    role = Role(3)
    driver = driven(role)
    woken = 0
    while not role.done.wait(0.001):
        driver.wake()
        woken += 1
        assert woken < 1000 * LIMIT
    assert woken > 100
