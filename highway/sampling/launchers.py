"""Shards: which part of the data a process reads, as its launcher says (torchrun, JAX, Slurm, Open MPI)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from highway.arguments import whole
from highway.errors import ArgumentError

__all__ = ["AUTO", "WHOLE", "Shard", "shard_of"]

logger = logging.getLogger("highway.sampling")

AUTO = "auto"

_MOST_RANKS = 2**32
# A shell that `srun` started for a person has the variables of a task, and runs one process.
_INTERACTIVE = ("bash", "sh", "zsh", "interactive")


class Shard(NamedTuple):
    """The part of the data that a process reads: the samples of rank `rank` of `world`."""

    rank: int
    world: int


WHOLE = Shard(0, 1)
# What was logged: once in a process for each result.
_logged: set[tuple[Shard, str]] = set()


def shard_of(owner: str, shard: object, environment: Mapping[str, str] | None = None) -> Shard:
    """Return the rank and the world of this process.

    Parameters
    ----------
    owner : str
        Name of the object with the argument `shard`, for errors and the log.
    shard : (int, int), "auto", process group, or (mesh, axis)
        (rank, world) as it is. "auto" asks, in this order: torch.distributed, if it is initialized; RANK and
        WORLD_SIZE; JAX, if it is distributed; OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE; SLURM_PROCID and
        SLURM_NTASKS; otherwise (0, 1). A process group of torch.distributed, a one-dimensional DeviceMesh, or
        a JAX mesh with the name of an axis: the position of this process in it; processes at the same position read
        the same samples.
    environment : mapping, optional
        ``os.environ`` by default.

    Raises
    ------
    ArgumentError
        `shard` is something else, or what the launchers say is incomplete or contradictory.
    """
    if isinstance(shard, np.ndarray):
        shard = shard.tolist()
    if isinstance(shard, str):
        if shard != AUTO:
            raise _unknown(owner, shard)
        found, origin = _launched(owner, os.environ if environment is None else environment)
        if found != WHOLE and (found, origin) not in _logged:
            _logged.add((found, origin))
            logger.info("%s: shard=%s, of %s", owner, tuple(found), origin)
        return found
    if isinstance(shard, (tuple, list)):
        if len(shard) != 2:
            raise _unknown(owner, shard)
        if hasattr(shard[0], "axis_names"):
            return _mesh_axis(owner, *shard)
        world = whole(owner, "shard[1] (world)", shard[1], 1, _MOST_RANKS)
        return Shard(whole(owner, "shard[0] (rank)", shard[0], 0, world - 1), world)
    return _group(owner, shard)


def _unknown(owner: str, shard: object) -> ArgumentError:
    return ArgumentError(
        f"{owner}: shard is {shard!r}; expected (rank, world), 'auto', a process group, or (mesh, axis)"
    )


def _launched(owner: str, environment: Mapping[str, str]) -> tuple[Shard, str]:
    """Return the shard of the launcher, and where it says so."""
    torch = _torch_distributed()
    if torch is not None:
        found = Shard(torch.get_rank(), torch.get_world_size())
        # Some launchers set one of the two.
        both = environment.get("RANK") and environment.get("WORLD_SIZE")
        stated = _variables(owner, environment, "RANK", "WORLD_SIZE") if both else None
        if stated is not None and stated != found:
            raise ArgumentError(
                f"{owner}: torch.distributed says rank {found.rank} of {found.world}, but RANK and WORLD_SIZE say "
                f"{stated.rank} of {stated.world}; expected the same, or shard=(rank, world)"
            )
        return found, "torch.distributed"
    stated = _variables(owner, environment, "RANK", "WORLD_SIZE")
    if stated is not None:
        return stated, "RANK and WORLD_SIZE"
    jax = sys.modules.get("jax")
    if jax is not None and getattr(jax.distributed, "is_initialized", bool)():
        return Shard(jax.process_index(), jax.process_count()), "jax.distributed"
    # Before Slurm: processes that mpirun starts inherit the variables of the Slurm task that it runs in.
    by_mpi = _variables(owner, environment, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
    if by_mpi is not None:
        return by_mpi, "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE"
    if not _is_slurm_shell(environment):
        by_slurm = _variables(owner, environment, "SLURM_PROCID", "SLURM_NTASKS")
        if by_slurm is not None:
            return by_slurm, "SLURM_PROCID and SLURM_NTASKS"
    return WHOLE, ""


def _is_slurm_shell(environment: Mapping[str, str]) -> bool:
    """Whether this process is no task of Slurm, although it has the variables of one.

    In the script of a batch job, outside of `srun`, and in a shell of ``srun --pty``, one process runs, and would read
    only the part of the first task.
    """
    if "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment:
        return True
    # Tasks that are started from such a shell inherit these variables, but not its terminal.
    shell = "SLURM_PTY_PORT" in environment or environment.get("SLURM_JOB_NAME") in _INTERACTIVE
    return shell and sys.stdin is not None and sys.stdin.isatty()


def _variables(owner: str, environment: Mapping[str, str], rank: str, world: str) -> Shard | None:
    """Return the shard that two variables state; None if they do not."""
    stated = {name: environment[name] for name in (rank, world) if environment.get(name)}
    if not stated:
        return None
    numbers = {}
    for name, text in stated.items():
        if not text.isascii() or not text.isdigit() or int(text) >= _MOST_RANKS:
            raise ArgumentError(
                f"{owner}: the variable {name} is {text!r}; expected a whole number, or shard=(rank, world)"
            )
        numbers[name] = int(text)
    if rank not in numbers:
        # The size of a job is also known to processes that are not its tasks, such as the shell of `salloc`.
        if rank != "RANK" or numbers[world] <= 1:
            return None
        raise ArgumentError(
            f"{owner}: the variable {world} is {numbers[world]}, and {rank} is not set, so every process would read "
            f"the same samples; set both, or shard=(rank, world), or shard=(0, 1) for all samples in every process"
        )
    if world not in numbers:
        raise ArgumentError(
            f"{owner}: the variable {rank} is {numbers[rank]}, and {world} is not set; set both, or shard=(rank, world)"
        )
    if numbers[rank] >= numbers[world]:
        raise ArgumentError(
            f"{owner}: the variables say {rank}={numbers[rank]} and {world}={numbers[world]}; expected a rank below "
            "the world; set both, or shard=(rank, world)"
        )
    return Shard(numbers[rank], numbers[world])


def _torch_distributed() -> Any:
    """The module torch.distributed if the program has initialized it; else None. Imports nothing."""
    module = sys.modules.get("torch.distributed")
    return module if module is not None and module.is_available() and module.is_initialized() else None


def _group(owner: str, group: Any) -> Shard:
    """The position of this process in a process group or a DeviceMesh of torch.distributed."""
    if hasattr(group, "get_local_rank") and hasattr(group, "ndim"):
        if group.ndim != 1:
            raise ArgumentError(
                f"{owner}: shard is a DeviceMesh of {group.ndim} dimensions; expected one: mesh['dp']"
            )
        return Shard(int(group.get_local_rank()), int(group.size()))
    torch = _torch_distributed()
    if torch is None or not isinstance(group, torch.ProcessGroup):
        raise _unknown(owner, group)
    rank = torch.get_rank(group)
    if rank < 0:
        raise ArgumentError(f"{owner}: shard is a process group that this process does not belong to")
    return Shard(rank, torch.get_world_size(group))


def _mesh_axis(owner: str, mesh: Any, axis: object) -> Shard:
    """The position of this process along an axis of a JAX mesh."""
    if axis not in mesh.axis_names:
        raise ArgumentError(
            f"{owner}: shard names the axis {axis!r}; expected one of {', '.join(map(repr, mesh.axis_names))}"
        )
    number = list(mesh.axis_names).index(axis)
    mine = sys.modules["jax"].process_index()
    devices = np.asarray(mesh.devices)
    owned = np.vectorize(lambda device: device.process_index == mine, otypes=[bool])(devices)
    places = sorted({int(place[number]) for place in np.argwhere(owned)})
    size, count = devices.shape[number], len(places)
    if not count:
        raise ArgumentError(f"{owner}: shard is a mesh that has no device of this process")
    rank = places[0] // count
    if size % count or places != list(range(rank * count, (rank + 1) * count)):
        raise ArgumentError(
            f"{owner}: the devices of this process are at {places} of {size} along the axis {axis!r}; expected equal "
            "consecutive parts for all processes; give shard=(rank, world)"
        )
    return Shard(rank, size // count)
