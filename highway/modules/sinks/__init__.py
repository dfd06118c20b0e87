"""Sinks: modules that keep batches."""
