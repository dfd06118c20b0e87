"""The watch over the actors of a pipeline; here they are actors that do nothing, on a cluster of Ray."""

import os
import time

import pytest
from concurrency import eventually
from ray_clusters import kill

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'highway-loader[ray]'")
from ray_actors import Broken, Dying, Idle  # noqa: E402

from highway.errors import RemoteError  # noqa: E402
from highway.ray import fleet as fleets  # noqa: E402
from highway.ray.fleet import Fleet  # noqa: E402
from highway.ray.scaling import Scaling  # noqa: E402


class Fleets:
    """Makes fleets, and notes what they report."""

    def __init__(self):
        self.made = []
        self.errors = []

    def __call__(self, kind, low, high=None, cpus=1, **more):
        options = {
            "num_cpus": cpus,
            "max_restarts": -1,
            "max_task_retries": -1,
            "max_concurrency": 2,
            "scheduling_strategy": "SPREAD",
            **more,
        }
        plan = Scaling(low, high or low, cpus)
        make = ray.remote(kind).options(**options).remote
        made = Fleet(ray, "fleet", make, plan, f"{cpus} CPUs", lambda: None, self.errors.append)
        self.made.append(made)
        made.start()
        return made


@pytest.fixture
def fleet(nodes):
    made = Fleets()
    yield made
    for each in made.made:
        each.stop()


def has(fleet, count):
    eventually(lambda: len(fleet.places) == count)
    return fleet.places


def alive(process):
    return os.path.exists(f"/proc/{process}")


def test_workers_spread_over_the_nodes_and_end_with_it(fleet):
    made = fleet(Idle, 3)
    places = has(made, 3)
    assert len({place.node for place in places}) == 3
    made.stop()
    eventually(lambda: not any(alive(place.process) for place in places))


def test_a_worker_that_dies_is_back(fleet):
    made = fleet(Idle, 2)
    before = has(made, 2)
    kill(before[0].process)
    eventually(lambda: len({place.process for place in made.places} - {before[0].process}) == 2)
    assert before[1] in made.places
    assert fleet.errors == []


def test_it_grows_and_shrinks_by_draining(fleet, caplog):
    caplog.set_level("INFO", "highway.ray")
    made = fleet(Idle, 1, 4)
    (first,) = has(made, 1)
    made.wanted = 4
    places = has(made, 4)
    made.wanted = 2
    assert first in has(made, 2)
    eventually(lambda: sum(alive(place.process) for place in places) == 2)
    assert caplog.text.count("was given back") == 2
    assert "was not drained" not in caplog.text


def test_workers_that_cannot_start_are_an_error(fleet, monkeypatch):
    monkeypatch.setattr(fleets, "PAUSE", 0.1)
    fleet(Broken, 1)
    eventually(lambda: fleet.errors)
    (error,) = fleet.errors
    assert isinstance(error, RemoteError)
    assert "could not start, and none has worked: ModuleNotFoundError: No module named 'augly'" in str(error)


def test_workers_that_die_at_once_do_not_storm(fleet, monkeypatch, caplog):
    monkeypatch.setattr(fleets, "MOST_QUICK", 2)
    monkeypatch.setattr(fleets, "PAUSE", 30.0)
    made = fleet(Dying, 1)
    eventually(lambda: "died 2 times in a row" in caplog.text)
    assert "another one starts in 30 s" in caplog.text
    assert made.places == []
    # None starts meanwhile.
    assert made._members == []


def test_more_than_the_cluster_has_starts_with_a_new_node(fleet, nodes, monkeypatch, caplog):
    monkeypatch.setattr(fleets, "SCARCE", 0.5)
    made = fleet(Idle, 1, cpus=1, resources={"decoder": 1})
    eventually(lambda: "has waited for" in caplog.text)
    assert "it needs 1 CPUs, and the cluster has CPU 6" in caplog.text
    nodes.add(resources={"decoder": 1})
    has(made, 1)
    nodes.remove(nodes.nodes[-1])


def test_a_lost_node_is_replaced_by_the_others(fleet, nodes):
    made = fleet(Idle, 3)
    before = has(made, 3)
    used = {place.node for place in before}
    lost = next(node for node in nodes.nodes if node.node_id in used)
    kept = {place.process for place in before if place.node != lost.node_id}
    nodes.remove(lost)
    eventually(lambda: sum(place.node != lost.node_id for place in made.places) == 3)
    assert kept <= {place.process for place in made.places}
    nodes.add()


def test_it_works_on_while_the_head_is_unreachable(fleet, nodes):
    made = fleet(Idle, 2)
    places = has(made, 2)
    with nodes.headless():
        # A stop that the head does not hear of: the workers end by themselves.
        began = time.monotonic()
        made.stop()
        assert time.monotonic() - began < 2
    eventually(lambda: not any(alive(place.process) for place in places))
