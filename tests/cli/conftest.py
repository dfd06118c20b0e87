"""Commands that run beside a test of this folder."""

import pytest
from commands import LIMIT, highway_command


@pytest.fixture
def start():
    """Start a command, and wait until it is up: the process, and its line."""
    running = []

    def begin(*arguments):
        process = highway_command(*arguments)
        running.append(process)
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate(timeout=LIMIT)[1])
        return process, line

    yield begin
    for process in running:
        process.kill()
        process.communicate(timeout=LIMIT)
