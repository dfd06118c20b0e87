"""A cluster of Ray with several nodes on this machine, for the tests; it ends with all of its processes."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from concurrency import eventually

import highway

# No token in the home folder, no reports to Ray's makers, no dashboard; without GPUs, Ray leaves their variables alone.
SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}
OBJECT_STORE = 80 << 20


class Nodes:
    """A cluster: a head without cores, and nodes that come and go."""

    def __init__(self, cluster, cpus):
        self._cluster = cluster
        self._cpus = cpus
        self.nodes = []

    @property
    def address(self):
        return self._cluster.address

    @property
    def gcs(self):
        """Process of the head's table of actors and nodes."""
        (process,) = self._cluster.head_node.all_processes["gcs_server"]
        return process.process.pid

    @contextmanager
    def headless(self):
        """Stop the process of the head's table for as long as the body takes."""
        os.kill(self.gcs, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.gcs, signal.SIGCONT)

    def add(self, count=1, **options):
        self.nodes += [
            self._cluster.add_node(
                num_cpus=self._cpus, object_store_memory=OBJECT_STORE, wait=False, **options
            )
            for _ in range(count)
        ]
        self._cluster.wait_for_nodes()

    def remove(self, node):
        """Kill a node and all that it runs."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)


@contextmanager
def cluster(folder, nodes=3, cpus=2):
    """Run a head and so many nodes, with their files in a folder, and connect to them."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.update(SETTINGS)
    # The nodes import what the tests import.
    paths = [str(Path(__file__).parent), str(Path(highway.__file__).parents[1])]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    head = {
        "num_cpus": 0,
        "object_store_memory": OBJECT_STORE,
        "include_dashboard": False,
        "temp_dir": str(folder),
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        found = Nodes(made, cpus)
        found.add(nodes)
        ray.init(address=made.address, log_to_driver=False)
        yield found
    finally:
        # Somebody may have connected to another cluster meanwhile.
        with suppress(Exception):
            ray.shutdown()
        made.shutdown()
        eventually(lambda: not processes_of(folder))


def processes_of(folder):
    """Processes whose command line names the folder of a cluster."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if str(folder) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def actors():
    """Processes of this machine that are actors of Highway."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "WorkerActor" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill(process):
    """Kill a process that may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
