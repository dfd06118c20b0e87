"""Workers: the modules of a pipeline on the nodes of a Ray cluster."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from highway.arguments import number, whole
from highway.arguments.limits import MOST_WINDOW
from highway.arguments.signatures import explained
from highway.engine import Module, Pipeline
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, PipelineStateError
from highway.network import Remote
from highway.network.zmq.addresses import Address, parse
from highway.network.zmq.security import SECRET_BYTES
from highway.ray.actor import Place, WorkerActor
from highway.ray.fleet import Fleet
from highway.ray.library import library
from highway.ray.scaling import Scaling

__all__ = ["Workers"]

# Most actors of a pipeline.
MOST_WORKERS = 4096
# Most cores of an actor.
MOST_CPUS = 1024


class Workers:
    """Runs the reader and the stages of a pipeline on a Ray cluster: ``Pipeline(modules, on=Workers(8))``.

    The pipeline returns the same batches, in the same order and with the same bits, as without ``on=``. Each worker is
    an actor of Ray: it connects to this process and holds nothing. If it dies, other workers make its batches and Ray
    starts it again, on any node. Batches travel over ZMQ, encrypted with a secret of this run, and not
    through Ray's object store.

    Parameters
    ----------
    min, max : int
        Fewest and most workers, 1 to 4096. By default `max` is `min`. In between, the pool grows while the training
        waits and shrinks to what it uses, and the logger ``highway.ray`` says why.
    cpus : float
        Cores of each worker, more than 0, at most 1024: what Ray reserves, and how many threads decode.
    resources : dict of str to float, optional
        Further resources that each worker reserves, as ``ray.remote`` takes them.
    label_selector : dict of str to str, optional
        Labels of the nodes that may run workers, as ``ray.remote`` takes them.
    runtime_env : dict, optional
        Environment of the workers, as ``ray.remote`` takes it. It needs Highway, and the packages of the modules.
    host : str, optional
        Address of this machine at which the nodes reach this process; by default the address of its node in Ray.
        With "127.0.0.1", all workers run on the node of this process, and batches are not encrypted.
    window : int
        Most batches in flight to one worker, 1 to 1024.
    timeout : float or None
        Seconds without progress after which the pipeline raises `PeerLostError`; None waits forever. It includes the
        time in which Ray starts the workers, or nodes.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    MissingPackageError
        Ray is not installed; raised by the Pipeline.

    Notes
    -----
    Connects to the cluster of ``ray.init()``; without one, ``ray.init()`` is called, which starts Ray on this machine.

    The workers end with the pipeline: with `Pipeline.stop`, when it is collected, and when this process dies.

    Modules travel pickled: their classes must be importable on the nodes, or belong to the main program.

    Examples
    --------
    >>> from highway.ray import Workers
    >>> Workers(2, 64, cpus=4)
    Workers(2, 64, cpus=4)
    """

    @explained()
    def __init__(
        self,
        min: int,
        max: int | None = None,
        *,
        cpus: float = 1,
        resources: Mapping[str, float] | None = None,
        label_selector: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        host: str | None = None,
        window: int = 8,
        timeout: float | None = 60,
    ) -> None:
        self.min = whole("Workers", "min", min, 1, MOST_WORKERS)
        self.max = self.min if max is None else whole("Workers", "max", max, self.min, MOST_WORKERS)
        self.cpus = number("Workers", "cpus", cpus, 0, MOST_CPUS)
        if not self.cpus:
            raise ArgumentError(f"Workers: cpus is {cpus!r}; expected more than 0, such as 0.5")
        self.resources = _mapping("resources", resources)
        self.label_selector = _mapping("label_selector", label_selector)
        self.runtime_env = _mapping("runtime_env", runtime_env)
        self.host = host
        if host is not None:
            _address(host)
        self.window = whole("Workers", "window", window, 1, MOST_WINDOW)
        self.timeout = None if timeout is None else number("Workers", "timeout", timeout, 0)
        self._remote: Remote | None = None
        self._definition = b""
        self._secret: bytes | None = None
        # The only node that reaches this process, if its address is that of its own machine.
        self._here: str | None = None
        self._fleet: Fleet | None = None

    def __repr__(self) -> str:
        texts = [f"{self.min}"] + ([f"{self.max}"] if self.max != self.min else [])
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                texts.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}")
        return f"Workers({', '.join(texts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self.min, self.max, {name: getattr(self, name) for name in _DEFAULTS})

    # What a pipeline calls

    def distribute(self, modules: Sequence[Module]) -> Sequence[Module]:
        """Return the modules that this process runs; see `highway.engine.Pipeline`."""
        if self._fleet is not None:
            raise PipelineStateError(
                "Workers: these workers run another pipeline; expected Workers(...) of its own for each pipeline, or "
                "the other one stopped"
            )
        ray = library("Workers")
        # The seeds that were drawn here go along.
        self._definition = _pickled(ray, modules)
        if not ray.is_initialized():
            ray.init()
        address = _address(self.host or ray.util.get_node_ip_address())
        self._here = ray.get_runtime_context().get_node_id() if address.is_local else None
        # A new one for each run: only the actors of this pipeline know it. Without one nothing is encrypted, which is
        # needed where other machines reach the address.
        self._secret = None if address.is_local else os.urandom(SECRET_BYTES)
        self._remote = Remote(
            str(address),
            str(address),
            window=self.window,
            timeout=self.timeout,
            secret=self._secret,
        )
        return self._remote.distribute(modules)

    def start(self, pipeline: Pipeline) -> None:
        """Start the workers, without waiting for them; see `highway.engine.Pipeline`."""
        assert self._remote is not None
        ray = library("Workers")
        self._remote.start(pipeline)
        tasks, batches = self._remote.addresses
        options = {
            "num_cpus": self.cpus,
            "max_restarts": -1,
            # Of the call that waits for a start; the others are made without.
            "max_task_retries": -1,
            # One call waits for the end of the worker, another one ends it.
            "max_concurrency": 2,
            "scheduling_strategy": "SPREAD" if self._here is None else _on_node(self._here),
        }
        for name in ("resources", "label_selector", "runtime_env"):
            if getattr(self, name):
                options[name] = getattr(self, name)
        make = partial(
            ray.remote(WorkerActor).options(**options).remote,
            self._definition,
            tasks,
            batches,
            self.cpus,
            {"secret": self._secret, "window": self.window},
        )
        pipelines = weakref.ref(pipeline)
        self._fleet = Fleet(
            ray,
            "ray workers",
            make,
            Scaling(self.min, self.max, self.cpus),
            ", ".join(
                [f"CPU {self.cpus:g}", *(f"{name} {count:g}" for name, count in self.resources.items())]
            ),
            partial(_stats, pipelines),
            partial(_fail, pipelines),
        )
        self._fleet.start()

    def close(self) -> None:
        """End the workers."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.stop()
        if self._remote is not None:
            self._remote.close()

    @property
    def places(self) -> list[Place]:
        """Where workers run now: host, node of Ray, process."""
        fleet = self._fleet
        return [] if fleet is None else fleet.places


_DEFAULTS: dict[str, Any] = {
    "cpus": 1.0,
    "resources": {},
    "label_selector": {},
    "runtime_env": {},
    "host": None,
    "window": 8,
    "timeout": 60.0,
}


def _mapping(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    given: object = value
    if not (isinstance(given, Mapping) and all(isinstance(key, str) for key in given)):
        raise ArgumentError(f"Workers: {name} is {value!r}; expected a dict with names as keys")
    return dict(value)


def _remade(low: int, high: int, options: dict[str, Any]) -> Workers:
    return Workers(low, high, **options)


def _address(host: object) -> Address:
    """Return the address, with any free port, at which workers reach this process."""
    if not isinstance(host, str) or not host:
        raise ArgumentError(f"Workers: host is {host!r}; expected an address or a name of this machine")
    return parse("Workers", f"tcp://[{host}]:*" if ":" in host else f"tcp://{host}:*", bind=True, name="host")


def _on_node(node: str) -> Any:
    """Return the strategy of Ray that starts actors on one node only."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _pickled(ray: Any, modules: Sequence[Module]) -> bytes:
    """Return modules as bytes: specifications, and classes of the main program as a whole."""
    for place, module in enumerate(modules):
        try:
            ray.cloudpickle.dumps(module)
        except Exception as error:
            # Whatever the user's objects raise.
            raise ArgumentError(
                f"Workers: modules[{place}], {module.name}, cannot be sent to another process: "
                f"{type(error).__name__}: {error}; expected modules whose arguments can be pickled"
            ) from error
    found: bytes = ray.cloudpickle.dumps(list(modules))
    return found


def _stats(pipelines: weakref.ref[Pipeline]) -> PipelineStats | None:
    pipeline = pipelines()
    return None if pipeline is None else pipeline.stats()


def _fail(pipelines: weakref.ref[Pipeline], error: BaseException) -> None:
    pipeline = pipelines()
    if pipeline is not None:
        pipeline.fail(error)
