"""Kernels for records of stores: spans, tables, checksums."""
