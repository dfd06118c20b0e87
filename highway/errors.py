"""Every exception of Highway: each derives from `HighwayError` and from the builtin a reader would expect."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "ContractError",
    "DatasetError",
    "DecodeError",
    "EmptyDatasetError",
    "EndOfData",
    "FieldError",
    "HighwayError",
    "MissingPackageError",
    "PipelineStateError",
    "QueueClosed",
    "ReadError",
    "TooManyErrors",
    "UnknownLengthError",
    "WaitTimeout",
]


class HighwayError(Exception):
    """Base of all errors that Highway raises."""


class ArgumentError(HighwayError, ValueError):
    """An argument is outside of what is allowed; the message names it, its value and what is allowed."""


class ContractError(HighwayError, TypeError):
    """A module returned what the engine cannot pass on; the message names it and what is allowed."""


class DecodeError(HighwayError, ValueError):
    """A file is not a picture, is damaged, or asks for more than the limits allow."""


class ReadError(HighwayError, OSError):
    """A file cannot be opened or read, or is no regular file."""


class DatasetError(HighwayError, OSError):
    """A folder of samples is none, or cannot be listed."""


class EmptyDatasetError(HighwayError, FileNotFoundError):
    """A folder has no classes, no pictures, or no picture that can be decoded."""


class TooManyErrors(HighwayError, RuntimeError):
    """More samples failed than `max_errors` allows."""


class EndOfData(HighwayError, EOFError):
    """All epochs were handed out; `dequeue()` has nothing more to give."""


class FieldError(HighwayError, AttributeError, KeyError):
    """A batch has no field of this name; the message lists those that it has."""

    # KeyError would show the message quoted.
    __str__ = Exception.__str__


class MissingPackageError(HighwayError, ImportError):
    """What was asked for needs a package that is not installed; the message says which, and how to install it."""


class PipelineStateError(HighwayError, RuntimeError):
    """The pipeline cannot do this now: it was stopped, or it has no such end."""


class UnknownLengthError(HighwayError, TypeError):
    """The source does not know how many batches an epoch has."""


class QueueClosed(HighwayError, RuntimeError):
    """The queue was closed while, or before, somebody waited at it."""


class WaitTimeout(HighwayError, TimeoutError):
    """Nothing arrived within the time that the caller gave."""
