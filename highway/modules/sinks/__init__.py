"""Sinks: modules that write batches to files."""
