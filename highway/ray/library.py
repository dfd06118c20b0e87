"""Ray itself, imported when a pipeline needs it."""

from __future__ import annotations

from typing import Any

from highway.errors import MissingPackageError

__all__ = ["library", "train"]


def library(owner: str) -> Any:
    """Return the module `ray`.

    Parameters
    ----------
    owner : str
        What needs it, for the error.

    Raises
    ------
    MissingPackageError
        Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(
            f"{owner}: Ray is not installed: pip install 'highway-loader[ray]' ({error})"
        ) from None
    return ray


def train(owner: str) -> Any:
    """Return the module `ray.train`.

    Parameters
    ----------
    owner : str
        What needs it, for the error.

    Raises
    ------
    MissingPackageError
        Ray, or a package that Ray Train needs, is not installed.
    """
    library(owner)
    try:
        import ray.train
    except ImportError as error:
        raise MissingPackageError(
            f"{owner}: Ray Train is not installed: pip install 'ray[train]' ({error})"
        ) from None
    return ray.train
