"""The exceptions of Highway: each derives from `HighwayError` and from the builtin exception that you would expect.

Warnings derive only from a builtin warning.
"""

from __future__ import annotations

__all__ = [
    "AddressError",
    "AddressInUseError",
    "ArgumentError",
    "BucketIndexError",
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
    "ObjectChangedError",
    "PeerLostError",
    "PipelineStateError",
    "PoisonItemError",
    "ProcessLostError",
    "ProtocolError",
    "QueueClosed",
    "ReadError",
    "RemoteError",
    "SampleError",
    "SampleIndexError",
    "SampleTimeoutError",
    "SecurityError",
    "SettingError",
    "SignatureError",
    "StateMismatchError",
    "StorageError",
    "StoreError",
    "StoreLockedError",
    "SupersededError",
    "TarError",
    "TooManyErrors",
    "UndeliveredError",
    "UnknownLengthError",
    "WaitTimeout",
    "WriteError",
]


class HighwayError(Exception):
    """Base of all errors that Highway raises."""


class ArgumentError(HighwayError, ValueError):
    """An argument is not allowed; the message gives its name, its value and what is allowed."""


class SignatureError(ArgumentError, TypeError):
    """A call has an unknown argument, too many arguments, or lacks a required one."""


class SettingError(ArgumentError, ImportError):
    """An environment variable is not valid; the message gives its name, its value and what is allowed."""


class ContractError(HighwayError, TypeError):
    """A module returned an invalid result; the message names the module and what is allowed."""


class DecodeError(HighwayError, ValueError):
    """A file is not a picture, is damaged, or asks for more than the limits allow."""


class ReadError(HighwayError, OSError):
    """A file cannot be opened or read, or is not a regular file."""


class StorageError(HighwayError, OSError):
    """The storage (a disk or a file server) failed for longer than a reader waits; no file is counted as bad."""


class ObjectChangedError(HighwayError, OSError):
    """An object of a store is not the one that was listed; the message says which one and what differs."""


class BucketIndexError(HighwayError, OSError):
    """The index of a bucket is damaged, of another bucket, or of another version of the format."""


class WriteError(HighwayError, OSError):
    """A file cannot be written; the message says which one and why."""


class SampleError(HighwayError, RuntimeError):
    """A data set raised for a sample, or returned what does not fit into a batch; the message names the sample."""


class ProcessLostError(SampleError):
    """A worker process ended while it made a sample, or could not start; the message names the sample, if any."""


class SampleTimeoutError(SampleError, TimeoutError):
    """A sample took longer than `timeout` in a worker process; the message names the sample."""


class DatasetError(HighwayError, OSError):
    """A data folder is not a folder, cannot be listed, or has two pictures for one mask."""


class EmptyDatasetError(HighwayError, FileNotFoundError):
    """A folder has no classes, no pictures, or no decodable picture; or the stages of a pipeline drop all samples."""


class StoreError(HighwayError, OSError):
    """A store cannot be opened, read or written; the message says which one and why."""


class StoreLockedError(StoreError):
    """The store is locked, by this process or another one."""


class CorruptStoreError(StoreError):
    """A store or one of its records is damaged: bytes are missing or differ from those that were written."""


class IncompleteStoreError(StoreError):
    """The store was not written to its end."""


class TarError(HighwayError, OSError):
    """A tar file cannot be indexed: it is cut off, damaged or compressed, or has members that cannot be samples."""


class StateMismatchError(HighwayError, ValueError):
    """A saved state or a batch belongs to other data."""


class SupersededError(HighwayError, RuntimeError):
    """Another training machine, which started later, receives the batches now."""


class TooManyErrors(HighwayError, RuntimeError):
    """More samples failed than `max_errors` allows."""


class EndOfData(HighwayError, EOFError):
    """All epochs are over; there are no more batches. The message says which epochs, and how to get more."""


class EmptyEpochError(HighwayError, RuntimeError):
    """Every batch of an epoch was skipped; the next epoch may have some."""


class FieldError(HighwayError, AttributeError, KeyError):
    """A batch has no field of this name; the message lists its fields."""

    # KeyError would quote the message.
    __str__ = Exception.__str__


class SampleIndexError(HighwayError, IndexError):
    """A batch has no sample of this number; the message says how many samples it has."""


class MissingPackageError(HighwayError, ImportError):
    """A feature needs a package that is not installed; the message says which one and how to install it."""


class PipelineStateError(HighwayError, RuntimeError):
    """The pipeline cannot do this: it was stopped, or its kind (such as one that ends in a sink) does not allow it."""


class UndeliveredError(HighwayError, RuntimeError):
    """A sink ended before all of its batches were received."""


class ProtocolError(HighwayError, ValueError):
    """A peer sent an invalid, damaged or oversized message; the error says what is wrong."""


class MessageTooLargeError(HighwayError, ValueError):
    """A message is larger than peers accept; the error says how large it is and what to do."""


class UnknownLengthError(HighwayError, TypeError):
    """The source does not know the number of batches in an epoch."""


class PeerLostError(HighwayError, ConnectionError):
    """Another machine was unreachable for longer than `timeout`; the message says what is missing."""


class PoisonItemError(HighwayError, RuntimeError):
    """A batch was abandoned: every machine that processed it was lost."""


class RemoteError(HighwayError, RuntimeError):
    """Another machine failed to make a batch; the message has its error and traceback."""


class QueueClosed(HighwayError, RuntimeError):
    """The queue is closed, or was closed during the wait."""


class AddressError(HighwayError, OSError):
    """An address cannot be used: the host, interface or folder does not exist, or this machine does not permit it."""


class AddressInUseError(AddressError):
    """The address is already in use."""


class SecurityError(HighwayError, PermissionError):
    """A setting would be insecure; the message says what to do instead."""


class InsecureWarning(UserWarning):
    """Data goes over the network without a secret, because of `insecure=True`."""


class WaitTimeout(HighwayError, TimeoutError):
    """Nothing arrived before the timeout."""
