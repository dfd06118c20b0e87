"""Reads arrays, in memory and in files: tables, time series, volumes, images."""

from highway.modules.readers.arrays.array_reader import ArrayReader

__all__ = ["ArrayReader"]
