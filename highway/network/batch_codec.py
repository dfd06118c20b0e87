"""Convert batches, failures and skips to protocol items, and back."""

from __future__ import annotations

import itertools
import os
import socket
import traceback
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway import errors
from highway.batch import Batch, ragged_groups
from highway.engine import Failure
from highway.errors import (
    HighwayError,
    MissingPackageError,
    PoisonItemError,
    ProtocolError,
    RemoteError,
    StorageError,
)
from highway.network.protocol.messages import Item, Kind
from highway.network.zmq.security import quoted

__all__ = [
    "is_of_the_machine",
    "item_of",
    "new_name",
    "remote_error",
    "to_batch",
    "with_remarks",
    "without_remarks",
]

# Longest text of an error in a message, in characters and in bytes.
MOST_TEXT = 4096
MOST_BYTES = 12_000


REMARKS = "bad samples"

_TEXTS = {str}
_numbers = itertools.count(1)


def here() -> str:
    """Return the name of this process in messages: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def new_name() -> str:
    """Return a new name for a pipeline of this process; all but the first have a number."""
    number = next(_numbers)
    return here() if number == 1 else f"{here()}/{number}"


def item_of(outcome: Batch | Failure | None) -> Item:
    """Return the item for an outcome; None is a skipped batch."""
    if outcome is None:
        return Item(Kind.SKIP, [], ())
    if isinstance(outcome, Failure):
        return Item(Kind.ERROR, _described(outcome), ())
    names, arrays = list(outcome.fields), list(outcome.fields.values())
    has_indices = outcome._indices is not None
    if has_indices:
        arrays.append(outcome.indices)
    if outcome.keys:
        arrays += _packed(outcome.keys)
    meta = [names, outcome.epoch, outcome.seq, outcome.applied, has_indices, bool(outcome.keys)]
    if outcome.extras or outcome.offsets is not None or outcome.ragged:
        meta += [list(outcome.extras), outcome.offsets is not None, sorted(outcome.ragged)]
        arrays += outcome.extras.values()
        if outcome.offsets is not None:
            arrays.append(outcome.offsets)
        elif outcome.ragged:
            # An older peer knows no tenth part, and raises ProtocolError.
            groups = ragged_groups(outcome)
            meta.append(groups)
            arrays += [outcome.offsets_of(group[0]) for group in groups]
    return Item(Kind.BATCH, meta, arrays)


def with_remarks(item: Item, remarks: list[list[Any]]) -> Item:
    """Return an item that tells of bad samples too: [number, class of the error, text] of each."""
    return item._replace(meta=[*item.meta, [REMARKS, *remarks]])


def without_remarks(item: Item) -> tuple[Item, dict[int, HighwayError]]:
    """Return the item itself, and the errors of the bad samples that it tells of, by their numbers."""
    last = item.meta[-1] if item.meta else None
    if not isinstance(last, (list, tuple)) or not last or last[0] != REMARKS:
        return item, {}
    found = {}
    for remark in last[1:]:
        if not isinstance(remark, (list, tuple)) or [*map(type, remark)] != [int, str, str]:
            raise ProtocolError("a batch tells of bad samples in another form than number, class and text")
        number, kind, text = remark
        found[number] = _local_error(kind, _shown(text))
    return item._replace(meta=item.meta[:-1]), found


def _local_error(kind: str, text: str) -> HighwayError:
    """Return an error of one of Highway's classes by its name, as another machine raised it."""
    made: object = getattr(errors, kind, None) if kind in errors.__all__ else None
    if isinstance(made, type) and issubclass(made, HighwayError):
        return made(text)
    return RemoteError(f"{kind}: {text}")


def _packed(keys: list[str]) -> list[NDArray[np.generic]]:
    # File names may hold bytes that are not UTF-8.
    texts = [key.encode("utf-8", "surrogateescape") for key in keys]
    lengths = np.array([len(text) for text in texts], dtype=np.uint32)
    return [lengths, np.frombuffer(b"".join(texts), dtype=np.uint8)]


def _unpacked(lengths: NDArray[np.uint32], texts: NDArray[np.uint8]) -> list[str]:
    if lengths.ndim != 1 or texts.ndim != 1 or lengths.dtype != np.uint32 or texts.dtype != np.uint8:
        raise ProtocolError("a batch holds keys that are not texts")
    whole, ends = texts.tobytes(), np.cumsum(lengths, dtype=np.int64)
    if len(whole) != (int(ends[-1]) if len(ends) else 0):
        raise ProtocolError(f"a batch holds {len(whole)} bytes of keys; expected {int(lengths.sum())}")
    starts = [0, *ends[:-1].tolist()]
    return [
        whole[start:end].decode("utf-8", "surrogateescape")
        for start, end in zip(starts, ends.tolist(), strict=True)
    ]


def to_batch(item: Item) -> Batch:
    """Return the batch of an item.

    Raises
    ------
    ProtocolError
        The item does not describe a batch.
    """
    try:
        names, epoch, seq, applied, has_indices, has_keys, *more = item.meta
        extra_names, has_offsets, ragged, *grouped = more or ([], False, [])
        groups = _checked_groups(grouped, ragged) if grouped else []
        listed: object
        for listed in (names, extra_names, ragged, *groups):
            if not isinstance(listed, (list, tuple)) or not {*map(type, listed)} <= _TEXTS:
                raise ProtocolError("a batch has invalid field names; expected lists of texts")
        if len({*names, *extra_names}) != len(names) + len(extra_names):
            raise ProtocolError("a batch has several fields with the same name")
        numbers = (epoch, applied) if seq is None else (epoch, applied, seq)
        if {*map(type, numbers)} != {int} or not 0 <= min(numbers) <= max(numbers) < 2**63:
            raise ProtocolError(
                "a batch has an invalid epoch, seq or applied; expected integers of 0 or more"
            )
        count = len(names) + bool(has_indices) + 2 * bool(has_keys) + len(extra_names)
        count += len(groups) + bool(has_offsets)
        if len(item.arrays) != count:
            raise ProtocolError(f"a batch has {len(item.arrays)} arrays; its description lists {count}")
        arrays = iter(item.arrays)
        fields = dict(zip(names, arrays, strict=False))
        indices = next(arrays) if has_indices else None
        keys = _unpacked(next(arrays), next(arrays)) if has_keys else None
        extras = dict(zip(extra_names, arrays, strict=False))
        offsets = next(arrays) if has_offsets else None
        apart = {name: given for group, given in zip(groups, arrays, strict=True) for name in group}
        for given in (offsets, *apart.values()):
            if given is not None and given.dtype != np.int64:
                raise ProtocolError(f"a batch has offsets of {given.dtype}; expected int64")
        return Batch(
            fields,
            epoch=epoch,
            seq=seq,
            indices=indices,
            keys=keys,
            applied=applied,
            extras=extras,
            offsets=offsets,
            ragged=apart or ragged,
        )
    except ProtocolError:
        raise
    except (HighwayError, ValueError, TypeError, IndexError) as error:
        raise ProtocolError(f"an item does not describe a batch: {error}") from None


def _checked_groups(grouped: list[object], ragged: object) -> list[list[str]]:
    """Return the names of the ragged arrays in groups; raises ProtocolError unless each is in one group."""
    (groups,) = grouped
    if isinstance(groups, (list, tuple)) and all(isinstance(group, (list, tuple)) for group in groups):
        named = [name for group in groups for name in group]
        if all(groups) and {*map(type, named)} <= _TEXTS and sorted(named) == ragged:
            return [list(group) for group in groups]
    raise ProtocolError("a batch has invalid groups of ragged fields; expected each ragged field once")


def _described(failure: Failure) -> list[str]:
    error = failure.error
    text = "".join(traceback.format_exception(error))
    parts = [type(error).__name__, str(error)[:MOST_TEXT], text[-MOST_TEXT:], f"{failure.module} on {here()}"]
    # They may hold file names with bytes that are not UTF-8; the escapes make them longer.
    return [
        part.encode("utf-8", "backslashreplace")[-MOST_BYTES:].decode("utf-8", "ignore") for part in parts
    ]


def _shown(text: str) -> str:
    """Return an untrusted text safe for a terminal, with its lines kept."""
    return "\n".join(quoted(line) for line in text.splitlines())


# These are not faults of the batch: every other batch fails on that machine too.
_OF_THE_MACHINE = {error.__name__ for error in (MissingPackageError, StorageError)}


def is_of_the_machine(item: Item) -> bool:
    """Whether an ERROR item reports a fault of the machine, not of the batch."""
    return bool(item.meta) and item.meta[0] in _OF_THE_MACHINE


def remote_error(item: Item) -> HighwayError:
    """Return the exception of an ERROR item."""
    kind, message, text, where = ([_shown(str(part)) for part in item.meta] + [""] * 4)[:4]
    if kind == "PoisonItemError":
        return PoisonItemError(f"ZMQSource: {message}")
    return RemoteError(f"ZMQSource: {where} raised {kind}: {message}\n\nRemote traceback:\n{text}")
