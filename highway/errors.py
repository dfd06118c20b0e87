"""Every exception of Highway: each derives from `HighwayError` and from the builtin a reader would expect.

Warnings derive from the builtin warning alone.
"""

from __future__ import annotations

__all__ = [
    "AddressError",
    "AddressInUseError",
    "ArgumentError",
    "ContractError",
    "CorruptStoreError",
    "DatasetError",
    "DecodeError",
    "EmptyDatasetError",
    "EmptyEpochError",
    "EndOfData",
    "FieldError",
    "HighwayError",
    "IncompleteStoreError",
    "InsecureWarning",
    "MessageTooLargeError",
    "MissingPackageError",
    "PeerLostError",
    "PipelineStateError",
    "PoisonItemError",
    "ProtocolError",
    "QueueClosed",
    "ReadError",
    "RemoteError",
    "SampleIndexError",
    "SecurityError",
    "SettingError",
    "SignatureError",
    "StateMismatchError",
    "StorageError",
    "StoreError",
    "StoreLockedError",
    "SupersededError",
    "TooManyErrors",
    "UndeliveredError",
    "UnknownLengthError",
    "WaitTimeout",
    "WriteError",
]


class HighwayError(Exception):
    """Base of all errors that Highway raises."""


class ArgumentError(HighwayError, ValueError):
    """An argument is outside of what is allowed; the message names it, its value and what is allowed."""


class SignatureError(ArgumentError, TypeError):
    """A call names an argument that there is not, gives too many, or leaves out one that has no default."""


class SettingError(ArgumentError, ImportError):
    """An environment variable holds what it cannot mean; the message names it, its value and what is allowed."""


class ContractError(HighwayError, TypeError):
    """A module returned what the engine cannot pass on; the message names it and what is allowed."""


class DecodeError(HighwayError, ValueError):
    """A file is not a picture, is damaged, or asks for more than the limits allow."""


class ReadError(HighwayError, OSError):
    """A file cannot be opened or read, or is no regular file."""


class StorageError(HighwayError, OSError):
    """What files lie on, a disk or a server, failed for longer than a reader waits; no file is to blame for it."""


class WriteError(HighwayError, OSError):
    """A file cannot be written; the message says which, and why."""


class DatasetError(HighwayError, OSError):
    """A folder of samples is none, cannot be listed, or has two pictures for one mask."""


class EmptyDatasetError(HighwayError, FileNotFoundError):
    """A folder has no classes, no pictures, or no picture that can be decoded."""


class StoreError(HighwayError, OSError):
    """A store cannot be opened, read or written; the message says which, and why."""


class StoreLockedError(StoreError):
    """Somebody, here or in another process, has the store open in a way that allows no other."""


class CorruptStoreError(StoreError):
    """A store, or a record of it, is damaged: bytes differ from those that were written, or are gone."""


class IncompleteStoreError(StoreError):
    """The writing of a store has not come to its end."""


class StateMismatchError(HighwayError, ValueError):
    """A saved state, or a batch, belongs to other data than what is here."""


class SupersededError(HighwayError, RuntimeError):
    """A training machine that began later gets the batches now."""


class TooManyErrors(HighwayError, RuntimeError):
    """More samples failed than `max_errors` allows."""


class EndOfData(HighwayError, EOFError):
    """All epochs were handed out; there are no more batches. The message says which epochs, and how to get more."""


class EmptyEpochError(HighwayError, RuntimeError):
    """Every batch of an epoch was skipped; the next epoch may have some."""


class FieldError(HighwayError, AttributeError, KeyError):
    """A batch has no field of this name; the message lists those that it has."""

    # KeyError would show the message quoted.
    __str__ = Exception.__str__


class SampleIndexError(HighwayError, IndexError):
    """A batch has no sample of this number; the message says how many it has."""


class MissingPackageError(HighwayError, ImportError):
    """What was asked for needs a package that is not installed; the message says which, and how to install it."""


class PipelineStateError(HighwayError, RuntimeError):
    """The pipeline cannot do this now: it was stopped, or it has no such end."""


class UndeliveredError(HighwayError, RuntimeError):
    """A sink ended before all of its batches were received."""


class ProtocolError(HighwayError, ValueError):
    """A peer sent what is no message, or one that is damaged or over a limit; the message says what is wrong."""


class MessageTooLargeError(HighwayError, ValueError):
    """A message is larger than peers take; the message says how large it is, and what to do."""


class UnknownLengthError(HighwayError, TypeError):
    """The source does not know how many batches an epoch has."""


class PeerLostError(HighwayError, ConnectionError):
    """Another machine is gone for longer than `timeout`; the message says what is missing."""


class PoisonItemError(HighwayError, RuntimeError):
    """A batch was given up, since every machine that had it fell silent."""


class RemoteError(HighwayError, RuntimeError):
    """A batch could not be made on another machine; the message holds the error and the traceback from there."""


class QueueClosed(HighwayError, RuntimeError):
    """The queue was closed while, or before, somebody waited at it."""


class AddressError(HighwayError, OSError):
    """An address cannot be used here: no such host, or no such interface, folder or permission on this machine."""


class AddressInUseError(AddressError):
    """Somebody else listens at this address."""


class SecurityError(HighwayError, PermissionError):
    """What was asked for would let strangers in; the message says what to do instead."""


class InsecureWarning(UserWarning):
    """Data goes over the network without a secret, because `insecure=True` says so."""


class WaitTimeout(HighwayError, TimeoutError):
    """Nothing arrived within the time that the caller gave."""
