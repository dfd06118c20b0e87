"""The last conversion of bytes to numbers in a pipeline, which a loader may change or compute on the device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from highway.engine import Module, Pipeline, Sink
from highway.errors import ArgumentError, PipelineStateError
from highway.modules.stages.augmentations import Augmentations
from highway.modules.stages.pad_boxes import PadBoxes
from highway.transforms.values import Values

__all__ = ["prepared"]


class _Conversion(NamedTuple):
    """The last conversion of images from bytes to numbers in some modules, and where it is."""

    values: Values
    module: int
    step: int
    # Whether no other transform, and no module that may read images, comes after it.
    is_last: bool


def _conversion_in(modules: Sequence[Any]) -> _Conversion | None:
    for place in range(len(modules) - 1, -1, -1):
        module = modules[place]
        if not isinstance(module, Augmentations) or module.field is not None:
            continue
        for step in range(len(module.transforms) - 1, -1, -1):
            values = module.transforms[step]
            if isinstance(values, Values) and values.needs_images:
                is_last = (
                    type(module) is Augmentations
                    and step == len(module.transforms) - 1
                    and all(type(after) is PadBoxes for after in modules[place + 1 :])
                )
                return _Conversion(values, place, step, is_last)
    return None


def prepared(
    pipeline: Any, channels_last: bool, on_device: bool
) -> tuple[Pipeline, tuple[Module, ...], Values | None]:
    """Return the pipeline to run, the modules as given, and their last transform that makes numbers of bytes."""
    made = isinstance(pipeline, Pipeline)
    modules = pipeline.given if isinstance(pipeline, Pipeline) else pipeline
    if isinstance(modules, (list, tuple)) and modules and isinstance(modules[-1], Sink):
        raise PipelineStateError(
            f"Loader: the pipeline ends in {modules[-1].name}, which consumes all batches; expected one without a "
            "sink: give the loader the pipeline that receives them"
        )
    found = _conversion_in(modules) if isinstance(modules, (list, tuple)) else None
    if on_device:
        if found is None or not found.is_last:
            raise ArgumentError(
                "Loader: normalize is 'device', and the transforms do not end in a Normalize, Rescale or ToFloat, with "
                "no module but PadBoxes after them; expected one to compute on the device"
            )
        replacement = None
    elif channels_last and found is not None and found.is_last and found.values.layout == "NCHW":
        replacement = copy.copy(found.values)
        replacement.layout = "NHWC"
        found = found._replace(values=replacement)
    else:
        values = None if found is None else found.values
        return pipeline if made else Pipeline(pipeline), tuple(modules), values
    if made and pipeline.started:
        raise PipelineStateError(
            f"Loader: {'normalize' if on_device else 'channels_last'} changes the modules of the pipeline, which has "
            "started; expected a pipeline that has not: give the loader its modules"
        )
    changed = _replaced(modules, found, replacement)
    if made:
        remake, (_, *arguments) = pipeline.__reduce__()
        return remake(changed, *arguments), tuple(modules), found.values
    return Pipeline(changed), tuple(modules), found.values


def _replaced(modules: Sequence[Module], found: _Conversion, replacement: Values | None) -> list[Module]:
    """Return the modules with another last conversion, or without it."""
    module = modules[found.module]
    assert isinstance(module, Augmentations)
    transforms = [*module.transforms[: found.step], *([] if replacement is None else [replacement])]
    others = list(modules)
    if not transforms:
        del others[found.module]
        return others
    _, (kind, arguments, keywords) = module.__reduce__()
    if arguments:
        arguments = (transforms, *arguments[1:])
    else:
        keywords = {**keywords, "transforms": transforms}
    others[found.module] = kind(*arguments, **keywords)
    return others
