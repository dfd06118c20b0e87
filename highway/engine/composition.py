"""Which modules make a pipeline: a source, stages, and optionally a sink, with seeds that all of its machines have."""

from __future__ import annotations

from collections.abc import Sequence

from highway.engine.module import Module, Outlet, Sink, Source, Stage
from highway.errors import ArgumentError

__all__ = ["check_regrouping", "check_seeds", "checked"]


def checked(modules: Sequence[Module]) -> list[Module]:
    """Return the modules of a pipeline.

    Raises
    ------
    ArgumentError
        There are none, one is in the wrong place or is no module, or one has a drawn seed that others need too.
    """
    if not isinstance(modules, (list, tuple)) or not modules:
        way = (
            f"; put it into a list: [{_kind(modules).partition(',')[0]}(...)]"
            if isinstance(modules, Module)
            else ""
        )
        raise ArgumentError(
            f"Pipeline: modules must be a list that begins with a Source, but is {modules!r}{way}"
        )
    last = len(modules) - 1
    for place, module in enumerate(modules):
        if not isinstance(module, Module):
            parts = module if isinstance(module, (list, tuple)) else [module]
            transforms = any(hasattr(part, "apply_images") for part in parts)
            way = "; transforms go into Augmentations([...])" if transforms else ""
            if not transforms and not isinstance(module, (type, list, tuple)):
                if place == 0 and (hasattr(module, "__getitem__") or hasattr(module, "__iter__")):
                    way = "; DatasetReader(dataset, batch_size) reads a data set"
                elif place and callable(module):
                    way = "; Map(function) makes a module of a function"
            raise ArgumentError(f"Pipeline: modules[{place}] must be a Module, but is {_kind(module)}{way}")
        if place == 0 and not isinstance(module, Source):
            raise ArgumentError(
                f"Pipeline: modules[0] must be a Source, such as ImageFileReader(...), but is {_kind(module)}"
            )
        if place > 0 and not isinstance(module, (Stage, Sink) if place == last else Stage):
            allowed = "a Stage or a Sink" if place == last else "a Stage"
            way = "; a Sink is the last module" if isinstance(module, Sink) else ""
            raise ArgumentError(f"Pipeline: modules[{place}] must be {allowed}, but is {_kind(module)}{way}")
    check_seeds(modules)
    return list(modules)


def check_regrouping(modules: Sequence[Module], ordered: bool) -> None:
    """Raise where a stage makes batches of other samples, and others need those of the source."""
    source, sink = modules[0], modules[-1]
    assert isinstance(source, Source)
    for module in modules:
        if not isinstance(module, Stage) or not module.regroups:
            continue
        if module.workers not in (None, 1):
            raise ArgumentError(
                f"{module.name}: workers is {module.workers}, and it makes batches of other samples than arrive; "
                "expected 1: put what takes long into a stage before it"
            )
        if not ordered:
            why = "the pipeline is unordered, so that samples of several epochs would mix; expected ordered=True"
        elif source.follows_delivery:
            why = f"{source.name} counts the batches that were delivered, which others replace; expected it where "
            why += "the batches are read"
        elif isinstance(sink, Outlet):
            why = f"{sink.name} makes lost batches again by their number in the reader; expected another sink"
        else:
            continue
        raise ArgumentError(
            f"{module.name}: it makes batches of other samples than arrive, and {why}. Filter(function, refill=False) "
            "keeps the batches"
        )


def check_seeds(modules: Sequence[Module]) -> None:
    """Raise for a drawn seed where other ranks or machines need the same seed."""
    source, sink = modules[0], modules[-1]
    assert isinstance(source, Source)
    for module in modules:
        if not module.seed_drawn:
            continue
        if source.shard[1] > 1:
            why = f"each of the {source.shard[1]} ranks would draw another"
        elif isinstance(sink, Outlet):
            why = f"lost batches of {sink.name} may be made again, elsewhere or later, with another seed"
        else:
            continue
        raise ArgumentError(
            f"{module.name}: seed is None, and {why}; expected a number, the same for all, such as "
            "secrets.randbits(64), drawn once"
        )


def _kind(thing: object) -> str:
    name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
    if isinstance(thing, type):
        return f"the class {name} itself; call it"
    for kind in (Source, Stage, Sink):
        if isinstance(thing, kind):
            return f"{name}, a {kind.__name__}"
    return name
