"""What commands take from a Python file of the user: the stages of a worker, or a pipeline."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from highway.engine import Module, Pipeline, Stage
from highway.errors import ArgumentError
from highway.modules import Augmentations
from highway.transforms import Transform

__all__ = ["augmentations", "modules_in", "stages_in"]


def augmentations(transforms: Sequence[Transform], seed: int | None, workers: int | None) -> list[Stage]:
    """Return the stage of a worker that applies transforms."""
    return [Augmentations(transforms, seed=seed or 0, workers=workers)]


def stages_in(path: Path, name: str, seed: int | None, workers: int | None) -> list[Stage]:
    """Return the stages of a worker: a list of transforms, a Stage, or a list of Stages, by its name in a Python file.

    Parameters
    ----------
    path : Path
        The file; it is executed.
    name : str
    seed, workers : int, optional
        For the `Augmentations` that applies the transforms.

    Raises
    ------
    ArgumentError
        The file is missing or fails, or the name is missing in it or has another type.
    """
    value = _value(path, name, _is_usable, "list of transforms")
    things = list(value) if isinstance(value, (list, tuple)) else [value]
    if all(isinstance(thing, Stage) for thing in things):
        if things and (seed is not None or workers is not None):
            raise ArgumentError(
                f"{path}: {name} holds Stages, which have their own seed and workers; --seed and --workers are for "
                "transforms"
            )
        return things
    if all(isinstance(thing, Transform) for thing in things):
        return augmentations(things, seed, workers)
    raise ArgumentError(
        f"{path}: {name} is {_shown(value)}; expected a list of transforms, a Stage, or a list of Stages"
    )


def modules_in(path: Path, name: str) -> list[Module]:
    """Return the modules of a pipeline: a Pipeline, a list of modules, or a function that returns one of them.

    Parameters
    ----------
    path : Path
        The file; it is executed.
    name : str

    Raises
    ------
    ArgumentError
        The file is missing or fails, or the name is missing in it or has another type; or the function fails.
    """
    value = _value(path, name, _is_pipeline, "pipeline")
    made = value
    if callable(value) and not isinstance(value, type):
        try:
            made = value()
        except Exception as error:
            # Every error of the user's function is reported.
            raise ArgumentError(
                f"{path}{_line(error, path)}: {name}() raised {type(error).__name__}: {error}; expected a function "
                "without arguments that returns a Pipeline or a list of modules"
            ) from error
    if isinstance(made, Pipeline):
        return list(made.modules)
    if _is_pipeline(made):
        return list(made)
    call = name if made is value else f"{name}()"
    raise ArgumentError(
        f"{path}: {call} is {_shown(made)}; expected a Pipeline, a list of modules that begins with a reader, or a "
        "function that returns one of them"
    )


def _value(path: Path, name: str, usable: Callable[[object], bool], noun: str) -> Any:
    """Return the value of a name in a file; raises with the usable names if it is missing."""
    module = _executed(path)
    if hasattr(module, name):
        return getattr(module, name)
    there = [each for each, value in vars(module).items() if each[:1] != "_" and usable(value)]
    found = f"found {', '.join(there)}" if there else f"it has no {noun}"
    raise ArgumentError(f"{path}: the file has no {name!r}; {found}")


def _is_pipeline(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(thing, Module) for thing in value)
    return isinstance(value, Pipeline)


def _is_usable(value: object) -> bool:
    things = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(thing, (Stage, Transform)) for thing in things)


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        kinds = [_class(thing) if isinstance(thing, type) else type(thing).__name__ for thing in value]
        return f"a {type(value).__name__} of {' and '.join(dict.fromkeys(kinds))}"
    return _class(value) if isinstance(value, type) else f"of type {type(value).__name__}"


def _class(kind: type) -> str:
    return f"the class {kind.__name__} itself"


def _executed(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArgumentError(f"{path}: there is no such file; expected a Python file")
    loader = SourceFileLoader(path.stem, str(path))
    spec = importlib.util.spec_from_loader(path.stem, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Like a script, it may import modules from its folder.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        loader.exec_module(module)
    except Exception as error:
        # Every error of the user's file is reported.
        raise ArgumentError(
            f"{path}{_line(error, path)}: {type(error).__name__}: {error}; the file must run without an error"
        ) from error
    return module


def _line(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return ""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f", line {lines[-1]}" if lines else ""
