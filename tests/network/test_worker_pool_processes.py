"""Pools and trainings in processes of their own, some of which are killed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import rank_pools
from commands import highway_command, run
from concurrency import LIMIT, eventually
from machines import FAST, nothing_left
from rank_pools import Gate, Ranks, Training, arrays, local, told

from highway.engine import Pipeline
from highway.network import Remote, worker_pipeline, worker_pool
from highway.network import exactly_once as exact


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Deaths are noticed after a second."""
    monkeypatch.setattr(exact, "TIMING", FAST)


def one_rank(modules, ranks):
    """Workers of one rank alone."""
    return worker_pipeline(modules, *ranks[0])


def test_a_killed_rank_is_forgotten_and_comes_back():
    with nothing_left(), Ranks(arrays, 2) as ranks, Training(shard=[0, 2]) as killed:
        other = ranks.pipelines[1]
        pool = ranks.pool([killed.addresses, ranks.remotes[1].addresses])
        found, state = zip(*[killed.take() for _ in range(5)], strict=True)
        killed.kill()
        rank = pool.pipeline.modules[-1].transport._served[0]
        eventually(lambda: not rank.transport.role.producer.links)
        eventually(lambda: not rank.unfinished and not rank.transport.role.consumer.held)
        assert told(other.forever()) == local(arrays((1, 2)))
        with Pipeline(arrays((0, 2)), on=Remote(*killed.addresses, timeout=LIMIT)) as again:
            again.load_state_dict(state[-1])
            assert [*found, *told(again.forever())] == local(arrays((0, 2)))


@pytest.mark.parametrize("make", [worker_pool, one_rank])
def test_tasks_of_a_killed_rank_are_not_those_of_its_successor(make):
    """Both number their tasks from 0."""
    Gate.opened.clear()
    with nothing_left(), Training(shard=[0, 2], gated=True) as killed, ExitStack() as stack:
        workers = stack.enter_context(make(arrays((0, 2), gated=True), [killed.addresses]))
        transport = getattr(workers, "pipeline", workers).modules[-1].transport
        eventually(lambda: transport.unfinished() >= 4)
        role = (transport._served[0].transport if make is worker_pool else transport).role
        before = role.producer.cursor.generation
        killed.kill()
        with Pipeline(arrays((1, 2), gated=True), on=Remote(*killed.addresses, timeout=LIMIT)) as successor:
            eventually(lambda: role.producer.cursor.generation > before and len(role.consumer.held) >= 4)
            Gate.opened.set()
            assert told(successor.forever()) == local(arrays((1, 2)))


PROGRAM = """
import sys

sys.path.insert(0, {helpers!r})
from rank_pools import arrays


def modules():
    return arrays((0, 2))
"""


def test_the_command_serves_two_trainings_and_another_takes_over(tmp_path):
    (tmp_path / "training.py").write_text(PROGRAM.format(helpers=str(Path(rank_pools.__file__).parent)))

    def work(addresses):
        command = ["work", "--pipeline", tmp_path / "training.py:modules", "--workers", 1, "--window", 2]
        for tasks, batches in addresses:
            command += ["--from", tasks, "--to", batches]
        return processes.enter_context(highway_command(*command))

    with nothing_left(), ExitStack() as processes, Ranks(arrays) as ranks:
        addresses = [remote.addresses for remote in ranks.remotes]
        first = work(addresses)
        assert first.stdout.readline().startswith(
            f"Working: PoolSource() -> Load(<ArrayReader of x=float32[400, 3], 4>) -> PoolSink({addresses!r})"
        )
        found = [told([pipeline.dequeue() for _ in range(3)]) for pipeline in ranks.pipelines]
        second = work(addresses)
        second.stdout.readline()
        first.kill()
        first.communicate(timeout=LIMIT)
        for rank, pipeline in enumerate(ranks.pipelines):
            assert [*found[rank], *told(pipeline.forever())] == local(arrays((rank, 2)))
        ranks.stop()
        output, errors = second.communicate(timeout=LIMIT)
        assert second.returncode == 0, errors
        assert "batches (" in output


def test_the_command_ends_without_any_rank(tmp_path):
    (tmp_path / "training.py").write_text(PROGRAM.format(helpers=str(Path(rank_pools.__file__).parent)))
    command = ["work", "--pipeline", tmp_path / "training.py:modules", "--exit-when-idle", 0.3]
    for port in (1, 2):
        command += ["--from", f"tcp://127.0.0.1:{port}", "--to", f"tcp://127.0.0.1:{port}"]
    with highway_command(*command) as process:
        output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    assert "no data machine and no receiver was connected for 0.3 s (--exit-when-idle)" in output


def test_the_command_refuses_unequal_numbers(capsys):
    address = "tcp://127.0.0.1:5555"
    command = ["work", "--from", address, "--from", address]
    code, _, errors = run(capsys, *command, "--to", address, "--pipeline", "training.py:modules")
    assert code == 1 and "--from 2 times, --to 1 times is given with --pipeline" in errors
    code, _, errors = run(capsys, *command, "--to", address, "--to", address)
    assert code == 1 and "--to is given 2 times; expected one training machine" in errors
